"""What every engine is: one loaded graph behind one interface, and the cache it hands out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class MaskType:
    """How the additive attention mask is written: its NumPy type and its value for "hidden".

    "Visible" is 0 in every type. bfloat16, which NumPy lacks, is written as its bits in uint16.
    """

    dtype: np.dtype[np.generic]
    hidden: float | int


MASK_TYPES = {
    "fp32": MaskType(np.dtype(np.float32), float(np.finfo(np.float32).min)),
    "fp16": MaskType(np.dtype(np.float16), float(np.finfo(np.float16).min)),
    "bf16": MaskType(np.dtype(np.uint16), 0xFF7F),
}


@dataclass(frozen=True)
class ForwardInputs:
    """One call of a graph (docs/design.md, "The graph's contract"): B requests, T new tokens each.

    The call appends T slots to a cache that holds S of them. Rows of `attention_mask` that belong
    to padding see at least themselves, so that no row of a softmax is empty.
    """

    input_ids: Int64  # [B, T]
    position_ids: Int64  # [B, T]
    attention_mask: NDArray[np.generic]  # [B, 1, T, S + T], additive, in the engine's mask type
    logit_rows: Int64  # [B, R], indices into T


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


class Engine(ABC):
    """One loaded graph, safe to share between threads; what is mutable lives in its caches."""

    def __init__(self, *, columns: int, mask_type: MaskType) -> None:
        self.columns = columns  # C: catalog tokens, the width of a row of log-probabilities
        self.mask_type = mask_type

    @abstractmethod
    def new_cache(self, batch: int) -> KVCache:
        """An empty cache for `batch` requests."""

    @abstractmethod
    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        """Run one call and append its T slots to `cache` (one that this engine handed out).

        Returns log-probabilities [B, R, C] over the catalog's tokens, normalised over the whole
        vocabulary; valid until the next call on the same cache.
        """
