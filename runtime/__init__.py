"""The loop: draft, verify, advance. Never imports torch."""

from .recommender import Recommender
from .types import DraftShape, Recommendation, RecommendedItem, RequestStats

__all__ = ["DraftShape", "Recommendation", "RecommendedItem", "Recommender", "RequestStats"]
