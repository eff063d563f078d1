"""Caches on a device of ONNX Runtime's: how they lie in its memory, and how a gather graph copies them."""

from math import inf

import numpy as np

from ..base import Int64
from ..bundle.facts import ModelFacts, Precision
from ..cuda import aligned
from ..memory import HeldCache, Holder, Lease, Pool
from .bound import CACHE_TYPES, DEVICE, BoundSession, OrtMemory, Tensors, Transfers, call_failed, power_of_two

SMALLEST = 1 << 16  # bytes taken for a cache


class GatheredCaches(Holder):
    """Keys and values of every layer in one lease, tensor after tensor."""

    def __init__(
        self, gather: BoundSession, transfers: Transfers, facts: ModelFacts, precision: Precision, device: str
    ) -> None:
        """precision: of the cache."""
        self._gather, self._transfers = gather, transfers
        # Captured graphs are bound to addresses: few pieces for all sizes.
        self._pool = Pool(OrtMemory(device), most=inf)
        self._heads, self._width = facts.kv_heads, facts.head_dim
        self._element, self._bytes = CACHE_TYPES[precision]
        self._names = facts.cache_names

    def new(self, batch: int, length: int) -> Lease:
        """Memory for a cache; the caller holds `DEVICE`."""
        return self._pool.take(self.size(batch, length))

    def size(self, batch: int, length: int) -> int:
        """Bytes to take for a cache: sizes, too, come again."""
        return power_of_two(max(len(self._names) * self._stride(batch, length), SMALLEST))

    def tensors(self, prefix: str, memory: Lease, batch: int, length: int) -> Tensors:
        """A cache as a model's graphs read and write it."""
        shape = (batch, self._heads, length, self._width)
        return self._placed(prefix, shape, memory, self._stride(batch, length))

    def kept(self, cache: HeldCache, rows: Int64, slots: Int64 | None) -> Lease:
        if slots is None:
            slots = np.broadcast_to(np.arange(cache.length), (len(rows), cache.length))
        with DEVICE:
            memory = self.new(*slots.shape)
            self._copy(cache, rows, slots, self._rows("present", memory, *slots.shape))
        return memory

    def joined(self, cache: HeldCache, other: HeldCache) -> Lease:
        batch, length = cache.batch + other.batch, max(cache.length, other.length)
        with DEVICE:
            memory = self.new(batch, length)
            whole, first = self._rows("present", memory, batch, length), 0
            for each in (cache, other):
                slot = np.arange(length)
                slots = np.broadcast_to(np.where(slot < each.length, slot, 0), (each.batch, length))
                shape = (each.batch * self._heads * length, self._width)
                begin = whole.address + first * self._width * self._bytes
                self._copy(each, np.arange(each.batch), slots, whole._replace(shape=shape, address=begin))
                first += shape[0]
        return memory

    def _copy(self, cache: HeldCache, rows: Int64, slots: Int64, to: Tensors) -> None:
        """Copy the slots [B', S'] of the rows [B']; the caller holds `DEVICE`."""
        heads, length, source = self._heads, cache.length, cache.memory
        index = (rows[:, None, None] * heads + np.arange(heads)[:, None]) * length + slots[:, None]  # [B', heads, S']
        assert source is not None
        past = self._rows("past_key_values", source, cache.batch, length)
        try:
            self._gather.run((*self._transfers.upload({"index": index.ravel()}), past), (to,))
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise call_failed(error, *slots.shape) from error

    def _rows(self, prefix: str, memory: Lease, batch: int, length: int) -> Tensors:
        """A cache as the gather graph does: one row a slot."""
        shape = (batch * self._heads * length, self._width)
        return self._placed(prefix, shape, memory, self._stride(batch, length))

    def _placed(self, prefix: str, shape: tuple[int, ...], memory: Lease, stride: int) -> Tensors:
        names = tuple(f"{prefix}.{name}" for name in self._names)
        return Tensors(names, self._element, shape, memory.address, stride)

    def _stride(self, batch: int, length: int) -> int:
        """Bytes from one tensor of a cache to the next."""
        return aligned(batch * self._heads * length * self._width * self._bytes)
