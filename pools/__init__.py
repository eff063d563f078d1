"""Retrieval pools: what was written or bought before, as a draft of what comes next (LASER/DARE, arXiv 2408.05676)."""

from .texts.branches import Branches, TextDrafting, propose
from .texts.live import LivePool
from .texts.pool import TextPool
from .texts.sources import Source

__all__ = ["Branches", "LivePool", "Source", "TextDrafting", "TextPool", "propose"]
