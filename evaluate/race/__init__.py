"""Ways to serve the same lists, in turns in one process: how fast each is, and where its time goes."""

from .check import Moved, check_again
from .outputs import RaceOutputs
from .run import race
from .settings import CONTESTANTS, RaceSettings

__all__ = ["CONTESTANTS", "Moved", "RaceOutputs", "RaceSettings", "check_again", "race"]
