"""The loop: draft, verify, advance. Never imports torch."""

from .answers import RequestError
from .options import Verification
from .recommender import Recommender
from .search.filters import ItemFilter
from .types import DraftShape, Recommendation, RecommendedItem, RequestFailure, RequestStats

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
