"""The loop: draft, verify, advance. Never imports torch."""

from .filters import ItemFilter
from .recommender import Recommender
from .types import DraftShape, Recommendation, RecommendedItem, RequestStats
from .verification import Verification

__all__ = [
    "DraftShape",
    "ItemFilter",
    "Recommendation",
    "RecommendedItem",
    "Recommender",
    "RequestStats",
    "Verification",
]
