"""How prompts come into a cache: their shared beginning is computed once per engine, or an encoder reads them."""

from collections.abc import Sequence

import numpy as np

from ...engines.base import Engine, ForwardInputs, causal
from ...engines.cache import KVCache
from ..types import Int64

WORTH = 16  # tokens; a shorter beginning costs less to compute again than its cache costs to copy
PIECE = 256  # tokens of it in a call, where memory is limited


def worth_sharing(tokens: int) -> int:
    """How many of the tokens that all prompts begin with are computed once: all or none."""
    return tokens if tokens >= WORTH else 0


class SharedPrefix:
    """An engine, and how its prompts come into a cache.

    Prompts are decoded behind the cached keys and values of what all of them begin with. Where the engine has an
    encoder, that reads them, and what is decoded begins with the engine's `start` alone.
    """

    def __init__(self, engine: Engine, tokens: Int64, *, limited: bool = False) -> None:
        """tokens [n]: what all prompts begin with; it is ignored where it is too short to be worth it.

        limited: memory is.
        """
        self.engine = engine
        self.length = worth_sharing(len(tokens)) if engine.start is None else 0
        if self.length:
            self._cache = engine.new_cache(1)
            piece = PIECE if limited else self.length
            for start in range(0, self.length, piece):
                ids = np.asarray(tokens[start : start + piece], np.int64)[None]
                positions, rows = start + np.arange(ids.shape[1])[None], np.zeros((1, 1), np.int64)
                inputs = ForwardInputs(ids, positions, *causal(start, ids.shape[1]), rows)
                engine.forward(inputs, self._cache)
            if self._cache.length > self.length:  # an engine may append more: slots that nobody ought to see
                self._cache.keep(np.zeros(1, np.int64), np.arange(self.length)[None])

    def opened(self, prompts: Sequence[Int64]) -> KVCache:
        """A cache for these requests that holds what is not to be decoded of their prompts."""
        return self.new_cache(len(prompts)) if self.engine.start is None else self.engine.read(prompts)

    def new_cache(self, batch: int) -> KVCache:
        """A cache for `batch` requests that holds the shared tokens already, where prompts are decoded."""
        if not self.length:
            return self.engine.new_cache(batch)
        cache = self._cache.copy()
        cache.keep(np.zeros(batch, np.int64))
        return cache

    def decoded(self, prompts: Sequence[Int64]) -> list[Int64]:
        """What is to be decoded of each prompt, behind what an opened cache holds."""
        if self.engine.start is not None:
            return [np.array([self.engine.start])] * len(prompts)
        return [prompt[self.length :] for prompt in prompts]

    def lengths(self, prompts: Sequence[Int64]) -> Int64:
        """[B] slots that prompts take in the cache, shared ones included."""
        if self.engine.start is not None:
            return np.ones(len(prompts), np.int64)
        return np.array([len(prompt) for prompt in prompts], np.int64)
