"""What every engine is: one loaded model behind one interface."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..catalog.errors import EngineError
from .cache import KVCache
from .footprint import Footprint

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class ForwardInputs:
    """One call of a graph (docs/design.md, "The graph's contract"): B requests, T new tokens each.

    The call appends T slots to a cache that holds S of them: token t takes slot S + t. It sees every slot
    below `visible_below` and those of `visible_slots` (-1: none), and nothing that comes after it. Rows
    that belong to padding see at least something, so that no row of a softmax is empty.
    """

    input_ids: Int64  # [B, T]
    position_ids: Int64  # [B, T]
    visible_below: Int64  # [B, T]
    visible_slots: Int64  # [B, T, L]
    logit_rows: Int64  # [B, R], indices into T; R is at least 1


def causal(past: int, new: int, batch: int = 1) -> tuple[Int64, Int64]:
    """`visible_below` and `visible_slots` of a call in which every token sees all before it, and itself."""
    below = np.broadcast_to(np.arange(past + 1, past + new + 1), (batch, new)).copy()
    return below, np.empty((batch, new, 0), np.int64)


class Engine(ABC):
    """One loaded model, safe to share between threads; what is mutable lives in its caches.

    Of an encoder-decoder `forward` is the decoder: its caches begin with `read`, and its prompts are `start` alone.
    """

    start: int | None = None  # the token that a decoder begins with where an encoder reads prompts; None: there is none

    def __init__(self, *, columns: int, footprint: Footprint | None = None) -> None:
        self.columns = columns  # C: catalog tokens, the width of a row of log-probabilities
        self.footprint = footprint  # what calls take of this process's memory; None: not known

    @abstractmethod
    def new_cache(self, batch: int) -> KVCache:
        """An empty cache for `batch` requests."""

    def read(self, prompts: Sequence[Int64]) -> KVCache:
        """A cache of no slots for as many requests as prompts [P], which the encoder has read."""
        raise EngineError(f"{type(self).__name__} has no encoder: its prompts are decoded (new_cache, forward).")

    @abstractmethod
    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        """Run one call and append its T slots to `cache` (one that this engine handed out).

        An engine may append more than T slots (holes that nobody sees): `cache.length` says where the next call begins.

        Returns log-probabilities [B, R, C] of the catalog's tokens, normalised over the whole vocabulary (over these
        columns alone where the engine was loaded for constrained scoring); valid until the next call on the same cache.
        """

    def kernels(self) -> bytes | None:
        """What was compiled for the device since the engine was loaded, to be loaded with it again; None: nothing."""
        return None
