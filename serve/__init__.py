"""What serving stacks embed: requests one at a time, batched in flight. Never imports torch."""

from ..runtime import Recommendation
from .errors import Cancelled, Closed, DeadlinePassed, Overloaded, ServeError
from .options import Serving
from .recommender import AsyncRecommender, Served

__all__ = [
    "AsyncRecommender",
    "Cancelled",
    "Closed",
    "DeadlinePassed",
    "Overloaded",
    "Recommendation",
    "ServeError",
    "Served",
    "Serving",
]
