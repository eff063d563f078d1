"""A bundle measured on a dataset's held-out users: ranking quality, target calls and walltime of every mode."""

from .outputs import Outputs
from .run import Evaluation, UserLine, evaluate
from .settings import Settings

__all__ = ["Evaluation", "Outputs", "Settings", "UserLine", "evaluate"]
