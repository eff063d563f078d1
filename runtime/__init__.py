"""The loop: draft, verify, advance. Never imports torch."""

from .answers import RequestError
from .options import Batching, Drafting, EngineChoice, Verification
from .recommender import Recommender
from .search.filters import ItemFilter
from .types import DraftShape, Recommendation, RecommendedItem, RequestFailure, RequestStats

__all__ = [
    "Batching",
    "DraftShape",
    "Drafting",
    "EngineChoice",
    "ItemFilter",
    "Recommendation",
    "RecommendedItem",
    "Recommender",
    "RequestError",
    "RequestFailure",
    "RequestStats",
    "Verification",
]
