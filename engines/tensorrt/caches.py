"""Keys and values on a GPU: how a plan's caches lie in its memory, and how their rows are copied."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from ...catalog.errors import EngineError
from ..base import Int64
from ..bundle.facts import ModelFacts, Precision
from ..cuda import Device, aligned, quiet
from ..memory import HeldCache, Holder, Lease, Pool
from .profiles import BYTES


class Placed(NamedTuple):
    """A tensor on the GPU."""

    shape: tuple[int, ...]
    address: int


class Memory:
    """A GPU's stream and its memory; plans that share it run one call at a time, under `lock`."""

    def __init__(self, device: Device) -> None:
        self.device, self.lock = device, Lock()
        self.pool = Pool(device, most=2)  # a small buffer shall not hold a large cache's memory
        # Caches refer to it: none is left then. When the process ends, CUDA may have ended before.
        finalize(self, _give_back, self.pool, device).atexit = False


@dataclass(frozen=True)
class CacheLayout:
    """How keys and values lie in memory: part after part (a layer's keys, its values, ...), packed [B, heads, S, D].

    A part's begin depends on the batch alone, so that rows of all parts can be copied at once.
    """

    parts: int  # 2 x layers
    heads: int
    head_dim: int
    itemsize: int  # bytes of a number; what the numbers are does not matter here
    capacity: int  # most slots

    @classmethod
    def of(cls, facts: ModelFacts, cache: Precision, capacity: int) -> "CacheLayout":
        """Of a model's caches; cache: their type."""
        return cls(2 * facts.layers, facts.kv_heads, facts.head_dim, BYTES[cache], capacity)

    def row(self, length: int) -> int:
        """Bytes of one request's slots in one part."""
        return self.heads * length * self.head_dim * self.itemsize

    def pitch(self, batch: int) -> int:
        """Bytes from one part to the next."""
        return aligned(batch * self.row(self.capacity))

    def size(self, batch: int) -> int:
        """Bytes of a cache."""
        return self.parts * self.pitch(batch)


class TrtCaches(Holder):
    """Caches of one layout."""

    def __init__(self, memory: Memory, layout: CacheLayout, names: tuple[str, ...]) -> None:
        """names: of the parts, behind "past_key_values." and the like."""
        self.memory, self.layout, self._names = memory, layout, names

    def new(self, batch: int) -> Lease:
        """Memory for a cache; the caller holds the lock."""
        return self.memory.pool.take(self.layout.size(batch))

    def parts(self, prefix: str, lease: Lease, batch: int, length: int) -> Mapping[str, Placed]:
        """A cache's tensors by a graph's names."""
        layout = self.layout
        shape, pitch = (batch, layout.heads, length, layout.head_dim), layout.pitch(batch)
        return {f"{prefix}.{name}": Placed(shape, lease.address + i * pitch) for i, name in enumerate(self._names)}

    def kept(self, cache: HeldCache, rows: Int64, slots: Int64 | None) -> Lease:
        """Rows are copied on the GPU; choosing slots goes through the host (the runtime never does)."""
        assert cache.memory is not None
        with self.memory.lock:
            kept = self.new(len(rows))
            if slots is None:
                self._copy_rows(cache, cache.memory, kept, rows)
            else:
                self._copy_slots(cache, cache.memory, kept, rows, slots)
        return kept

    def joined(self, cache: HeldCache, other: HeldCache) -> Lease:
        layout, batch, length = self.layout, cache.batch + other.batch, max(cache.length, other.length)
        longer, device = cache if cache.length >= other.length else other, self.memory.device
        assert longer.memory is not None
        with self.memory.lock:
            joined, to = self.new(batch), layout.pitch(batch)
            width, first = layout.row(length), 0
            for each in (cache, other):
                assert each.memory is not None
                begin, source = joined.address + first * width, layout.pitch(each.batch)
                if each.length < length:  # holes get somebody's numbers: memory that was never written may hold NaN
                    for row in range(each.batch):
                        device.copy_rows(
                            begin + row * width, to, longer.memory.address, layout.pitch(longer.batch),
                            width=width, rows=layout.parts,
                        )  # fmt: skip
                slots, wide = layout.row(each.length) // layout.heads, width // layout.heads
                for part in range(layout.parts):
                    device.copy_rows(
                        begin + part * to, wide, each.memory.address + part * source, slots,
                        width=slots, rows=each.batch * layout.heads,
                    )  # fmt: skip
                first += each.batch
        return joined

    def _copy_rows(self, cache: HeldCache, source: Lease, to: Lease, rows: Int64) -> None:
        layout, width = self.layout, self.layout.row(cache.length)
        pitches = layout.pitch(len(rows)), layout.pitch(cache.batch)
        for i, row in enumerate(rows.tolist()):
            new, old = to.address + i * width, source.address + row * width
            self.memory.device.copy_rows(new, pitches[0], old, pitches[1], width=width, rows=layout.parts)

    def _copy_slots(self, cache: HeldCache, source: Lease, to: Lease, rows: Int64, slots: Int64) -> None:
        layout, device = self.layout, self.memory.device
        old = np.empty((cache.batch, layout.heads, cache.length, layout.head_dim * layout.itemsize), np.uint8)
        for part in range(layout.parts):
            device.download(old, source.address + part * layout.pitch(cache.batch))
            device.synchronize()
            new: NDArray[np.uint8] = np.take_along_axis(old[rows], slots[:, None, :, None], axis=2)
            device.upload(to.address + part * layout.pitch(len(rows)), new)
            device.synchronize()


def _give_back(pool: Pool, device: Device) -> None:
    with suppress(EngineError), quiet():
        pool.clear()
        device.close()
