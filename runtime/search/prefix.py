"""The beginning that all prompts share: computed once per engine, not once per request."""

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
    """An engine and the cached keys and values of the tokens that every prompt begins with."""

    def __init__(self, engine: Engine, tokens: Int64, *, limited: bool = False) -> None:
        """tokens [n]: what all prompts begin with; it is ignored where it is too short to be worth it.

        limited: memory is.
        """
        self.engine = engine
        self.length = worth_sharing(len(tokens))
        self._cache = engine.new_cache(1)
        if self.length:
            piece = PIECE if limited else self.length
            for start in range(0, self.length, piece):
                ids = np.asarray(tokens[start : start + piece], np.int64)[None]
                positions, rows = start + np.arange(ids.shape[1])[None], np.zeros((1, 1), np.int64)
                inputs = ForwardInputs(ids, positions, *causal(start, ids.shape[1]), rows)
                engine.forward(inputs, self._cache)
            if self._cache.length > self.length:  # an engine may append more: slots that nobody ought to see
                self._cache.keep(np.zeros(1, np.int64), np.arange(self.length)[None])

    def new_cache(self, batch: int) -> KVCache:
        """A cache for `batch` requests that holds the shared tokens already."""
        if not self.length:
            return self.engine.new_cache(batch)
        cache = self._cache.copy()
        cache.keep(np.zeros(batch, np.int64))
        return cache
