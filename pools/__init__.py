"""Retrieval pools: what was written or bought before, as a draft of what comes next (LASER/DARE, arXiv 2408.05676)."""

from .branches import Branches, Drafting, propose
from .live import LivePool
from .sources import Source
from .text_pool import TextPool

__all__ = ["Branches", "Drafting", "LivePool", "Source", "TextPool", "propose"]
