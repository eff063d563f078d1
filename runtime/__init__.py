"""The loop: draft, verify, advance. Never imports torch."""

from .answers import RequestError
from .filters import ItemFilter
from .recommender import Recommender
from .types import DraftShape, Recommendation, RecommendedItem, RequestFailure, RequestStats
from .verification import Verification

__all__ = [
    "DraftShape",
    "ItemFilter",
    "Recommendation",
    "RecommendedItem",
    "Recommender",
    "RequestError",
    "RequestFailure",
    "RequestStats",
    "Verification",
]
