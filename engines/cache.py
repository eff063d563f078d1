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
