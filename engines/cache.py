"""What every KV cache is: the keys and values of a batch; it owns its length."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


class KVCache(ABC):
    """Keys and values of B requests in S slots each, on the engine's device.

    Slots are never reordered for beams: a node keeps its slot, and the mask decides who sees it. A
    forgotten slot is a hole that the mask hides, until `keep` closes the holes.
    """

    @property
    @abstractmethod
    def batch(self) -> int:
        """B: requests held."""

    @property
    @abstractmethod
    def length(self) -> int:
        """S: slots per request, holes included."""

    @property
    def read(self) -> int:
        """Tokens per request, padding included, that an encoder has read beside these slots."""
        return 0

    @abstractmethod
    def copy(self) -> "KVCache":
        """A cache of its own with the same content (which is shared: no engine writes into a tensor twice)."""

    @abstractmethod
    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        """Compact: the new row i holds the slots `slots[i]` (by default all) of the old row `rows[i]`.

        rows [B'], slots [B', S']; both may repeat and shrink. Row lengths stay equal: pad `slots`
        with any valid slot, and hide it.
        """

    @abstractmethod
    def join(self, other: "KVCache") -> None:
        """Take another cache's rows in behind these (one of the same engine, which is left as it was).

        Rows keep their slots. Where one cache has fewer, its rows get holes of finite numbers behind them: hide them.
        """


class ReadCache(KVCache):
    """What a decoder has cached, and beside it the keys and values of prompts that an encoder has read, which stay."""

    def __init__(self, own: KVCache, prompts: KVCache, lengths: Int64) -> None:
        """prompts: one slot a token, padded at their ends; lengths [B]: tokens of each. Both are taken over."""
        self.own, self.prompts, self.lengths = own, prompts, lengths

    @property
    def batch(self) -> int:
        return self.own.batch

    @property
    def length(self) -> int:
        return self.own.length

    @property
    def read(self) -> int:
        return self.prompts.length

    def copy(self) -> "ReadCache":
        return ReadCache(self.own.copy(), self.prompts.copy(), self.lengths)

    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        self.own.keep(rows, slots)
        self.prompts.keep(rows)
        self.lengths = self.lengths[rows]

    def join(self, other: KVCache) -> None:
        assert isinstance(other, ReadCache)
        self.own.join(other.own)
        self.prompts.join(other.prompts)
        self.lengths = np.concatenate([self.lengths, other.lengths])
