"""Knowledge text by a target model, drafted from retrieval pools (LASER/DARE, arXiv 2408.05676)."""

from ..pools.texts.branches import TextDrafting
from .generator import TextGenerator
from .stats import GenerationStats
from .types import Text, TextRequest, TextStats, TextVerification

__all__ = ["GenerationStats", "Text", "TextDrafting", "TextGenerator", "TextRequest", "TextStats", "TextVerification"]
