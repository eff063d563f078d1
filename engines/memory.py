"""Device memory that is used again and again, and the caches that hold it."""

from abc import ABC, abstractmethod
from typing import NamedTuple
from weakref import finalize

import numpy as np

from ..catalog.errors import EngineError
from .cache import Int64, KVCache


class Allocator(ABC):
    """Where a pool's memory comes from."""

    @abstractmethod
    def allocate(self, size: int) -> int:
        """Address of `size` new bytes, aligned for any tensor; raises `EngineError` where the device has none left."""

    @abstractmethod
    def free(self, address: int) -> None:
        """Give back what `allocate` returned, once the device is done with it."""


class Lease:
    """Device memory in use; it is free for others once nothing refers to the lease."""

    def __init__(self, address: int) -> None:
        self.address = address


class _Piece(NamedTuple):
    size: int  # bytes
    number: int  # of the allocation: the oldest of a size is taken first
    address: int


class Pool:
    """Memory of one device that is used again: caches come and go, their addresses stay few.

    The smallest and oldest piece that fits is taken, so that the same requests in the same order meet the same
    addresses. Leases end at any time and in any thread (a list's `append` is atomic); taking and clearing are for one
    thread at a time. What was given back may still be read by work on the device: it is lent to work that
    is queued behind that.
    """

    def __init__(self, allocator: Allocator, *, most: float) -> None:
        """most: how many times as large as asked a piece may be that is taken again."""
        self._allocator, self._most = allocator, most
        self._free: list[_Piece] = []
        self._made = 0

    def take(self, size: int) -> Lease:
        """At least `size` bytes; raises `EngineError` where the device has none left."""
        fitting = [piece for piece in list(self._free) if size <= piece.size <= self._most * size]
        if fitting:
            piece = min(fitting)
            self._free.remove(piece)
        else:
            piece = self._make(size)
        lease = Lease(piece.address)
        finalize(lease, self._free.append, piece).atexit = False
        return lease

    def clear(self) -> None:
        """Free what nobody uses."""
        while self._free:
            self._allocator.free(self._free.pop().address)

    def _make(self, size: int) -> _Piece:
        try:
            address = self._allocator.allocate(size)
        except EngineError:
            if not self._free:
                raise
            self.clear()  # pieces that do not fit
            address = self._allocator.allocate(size)
        self._made += 1
        return _Piece(size, self._made, address)


class Holder(ABC):
    """How caches lie in a device's memory, and who copies them there."""

    @abstractmethod
    def kept(self, cache: "HeldCache", rows: Int64, slots: Int64 | None) -> Lease:
        """A copy of the slots `slots[i]` (None: all) of the rows `rows[i]` of a cache; it holds something, and is left.

        rows [B'], slots [B', S'] as in `KVCache.keep`; neither is empty.
        """

    @abstractmethod
    def joined(self, cache: "HeldCache", other: "HeldCache") -> Lease:
        """A copy of both caches as one, as `KVCache.join`; both hold something, and are left."""


def held(cache: KVCache) -> "HeldCache":
    """A cache that an engine was given; raises `EngineError` where another kind of engine made it."""
    if not isinstance(cache, HeldCache):
        raise EngineError(f"This engine runs on the caches it hands out (new_cache); got {type(cache).__name__}.")
    return cache


class HeldCache(KVCache):
    """Keys and values of every layer in one lease.

    No call writes into memory that a cache refers to, so copies share it, and a call's two leases take turns.
    """

    def __init__(self, holder: Holder, batch: int) -> None:
        self._holder, self._batch, self._length = holder, batch, 0
        self._memory: Lease | None = None

    @property
    def batch(self) -> int:
        return self._batch

    @property
    def length(self) -> int:
        return self._length

    @property
    def memory(self) -> Lease | None:
        """Where it lies; None while it is empty."""
        return self._memory

    def hold(self, memory: Lease | None, batch: int, length: int) -> None:
        """Have other content from now on; the old is given back unless a copy has it, too."""
        self._memory, self._batch, self._length = memory, batch, length

    def copy(self) -> "HeldCache":
        other = HeldCache(self._holder, self._batch)
        other.hold(self._memory, self._batch, self._length)
        return other

    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        if slots is None and np.array_equal(rows, np.arange(self._batch)):
            return
        length = self._length if slots is None else slots.shape[1]
        memory = self._holder.kept(self, rows, slots) if len(rows) and length else None
        self.hold(memory, len(rows), length)

    def join(self, other: KVCache) -> None:
        other = held(other)
        memory = self._holder.joined(self, other)
        self.hold(memory, self._batch + other.batch, max(self._length, other.length))
