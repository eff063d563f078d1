"""Device memory that is used again, on an allocator that only counts."""

import gc
from math import inf

import pytest

from specbeam.catalog.errors import EngineError
from specbeam.engines.memory import Allocator, Pool


class Counter(Allocator):
    """Addresses as far apart as the sizes; no more than `room` bytes at once."""

    def __init__(self, room: int) -> None:
        self.room, self.next, self.live = room, 0, dict[int, int]()

    def allocate(self, size: int) -> int:
        if sum(self.live.values()) + size > self.room:
            raise EngineError("full")
        self.next += size
        self.live[self.next] = size
        return self.next

    def free(self, address: int) -> None:
        del self.live[address]


def test_memory_is_given_back_by_whoever_drops_it_last() -> None:
    pool = Pool(Counter(10_000), most=inf)
    first, second = pool.take(100), pool.take(1000)
    where = first.address, second.address
    other = first
    del first
    third = pool.take(100)
    assert third.address not in where  # the first is in use still
    del other, second, third
    gc.collect()
    leases = [pool.take(size) for size in (100, 1000)]  # the smallest that fits, the oldest of these
    assert [lease.address for lease in leases] == list(where)
    assert pool._made == 3


@pytest.mark.parametrize(("most", "made"), [(2, 2), (inf, 1)])
def test_how_large_a_piece_a_small_lease_may_hold(most: float, made: int) -> None:
    pool = Pool(Counter(10_000), most=most)
    pool.take(1000)
    for size in (1000, 500, 499):
        pool.take(size)
    assert pool._made == made


def test_what_nobody_uses_is_freed_where_there_is_no_room() -> None:
    counter = Counter(1000)
    pool = Pool(counter, most=inf)
    used, spare = pool.take(300), pool.take(400)
    with pytest.raises(EngineError, match="full"):
        pool.take(500)  # nothing to free: both are in use
    del spare
    large = pool.take(700)
    assert counter.live == {used.address: 300, large.address: 700}
    del used, large
    pool.clear()
    assert not counter.live
