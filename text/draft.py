"""Drafters of text: what is likely to come next, as a tree."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ..pools.texts.branches import Branches, TextDrafting, propose
from ..pools.texts.live import LivePool
from ..pools.texts.pool import TextPool
from .types import Int64

_NONE = np.empty(0, np.int64)
NOTHING = Branches(_NONE, _NONE, _NONE, _NONE, np.empty(0))


class TextDrafter(ABC):
    """Drafts for all batches of a generator."""

    @abstractmethod
    def propose(
        self, contexts: Sequence[Int64], groups: Sequence[str | None], depths: Int64, *, fresh: bool
    ) -> Branches:
        """Branches behind every context's last token, at most `depths` [B] deep.

        groups [B]: whose pools; fresh: nothing is written yet, the contexts are prompts.
        """

    @abstractmethod
    def learn(self, tokens: Int64, group: str | None) -> None:
        """Take in a text that was written."""

    def afresh(self) -> "TextDrafter":
        """The same as it was before anything was written."""
        return self


class NoDrafter(TextDrafter):
    """Drafts nothing: one token a call, plain greedy decoding."""

    def propose(
        self, contexts: Sequence[Int64], groups: Sequence[str | None], depths: Int64, *, fresh: bool
    ) -> Branches:
        return NOTHING

    def learn(self, tokens: Int64, group: str | None) -> None:
        pass


class PoolDrafter(TextDrafter):
    """Drafts from a pool of earlier texts, from what was written since, and from the prompt and the text itself."""

    def __init__(self, pool: TextPool | None, live: LivePool | None, drafting: TextDrafting) -> None:
        """live: takes in what is written (None: nothing does); threads share it."""
        self._pool, self._live, self._drafting = pool, live, drafting

    def propose(
        self, contexts: Sequence[Int64], groups: Sequence[str | None], depths: Int64, *, fresh: bool
    ) -> Branches:
        sources = [
            ([] if self._pool is None else [self._pool.source(group)])
            + ([] if self._live is None else self._live.sources(group))
            for group in groups
        ]
        return propose(contexts, sources, self._drafting, depths, np.full(len(contexts), fresh))

    def learn(self, tokens: Int64, group: str | None) -> None:
        if self._live is not None:
            self._live.add(tokens, group)

    def afresh(self) -> "PoolDrafter":
        live = None if self._live is None else LivePool(reach=self._drafting.reach)
        return PoolDrafter(self._pool, live, self._drafting)
