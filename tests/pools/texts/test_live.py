"""Text generated while running: found at once, bounded, and forgotten in the end."""

from threading import Thread

import numpy as np
import pytest

from naive_pool import paths_of
from specbeam.catalog.errors import OptionError
from specbeam.pools import LivePool, TextDrafting, propose
from specbeam.pools.texts.sources import BEGINNING, SEPARATOR

DRAFTING = TextDrafting(depth=3)
REACH = DRAFTING.reach


def drafted(pool: LivePool, *context: int, group: str | None = None) -> dict[tuple[int, ...], float]:
    return dict(paths_of(propose([context], [pool.sources(group)], DRAFTING), 1)[0])


def size(pool: LivePool, group: str | None = None) -> int:
    return sum(len(source.tokens) - REACH for source in pool.sources(group))


def test_a_text_is_found_as_soon_as_it_is_added() -> None:
    pool = LivePool(capacity=1000, reach=REACH)
    assert pool.sources(None) == []
    for n in range(30):
        pool.add(np.array([1, 2, 100 + n]), None)
        found = drafted(pool, 1, 2)
        assert len(found) == n + 1
        assert set(found.values()) == {1 / (n + 1)}
        assert size(pool) == 4 * (n + 1)


def test_a_group_s_pool_holds_its_own_text_and_the_common_one_all() -> None:
    pool = LivePool(capacity=1000, reach=REACH)
    pool.add([1, 2], "a")
    pool.add([1, 3], "b")
    pool.add([1, 4], None)
    assert drafted(pool, 1, group="a") == {(2,): 1.0}
    assert drafted(pool, 1, group="b") == {(3,): 1.0}
    assert drafted(pool, 1, group="unheard of") == {}
    assert set(drafted(pool, 1)) == {(2,), (3,), (4,)}


def test_windows_do_not_cross_the_ends_of_texts() -> None:
    pool = LivePool(capacity=40, reach=REACH)
    for n in range(30):
        pool.add([1, n], None)
        assert all(path == (path[0],) for path in drafted(pool, 1))


def test_old_text_counts_half_and_is_dropped_in_the_end() -> None:
    pool = LivePool(capacity=80, reach=REACH)
    for _ in range(10):
        pool.add([1, 2, 3], None)  # a generation: 40 tokens, separators included
    assert drafted(pool, 1, 2) == {(3,): 1.0}
    for _ in range(5):
        pool.add([1, 2, 4], None)
    assert drafted(pool, 1, 2) == {(3,): 0.5, (4,): 0.5}
    for _ in range(6):
        pool.add([1, 2, 4], None)
    assert drafted(pool, 1, 2) == {(4,): 1.0}


@pytest.mark.parametrize("length", [1, 7, 63, 5000])
def test_it_never_grows_over_its_capacity(length: int) -> None:
    pool, rng = LivePool(capacity=128, reach=REACH), np.random.default_rng(length)
    sizes = []
    for _ in range(100):
        pool.add(rng.integers(0, 9, length), "a")
        sizes.append(size(pool, "a"))
        assert size(pool) == sizes[-1]
        for source in pool.sources("a"):
            assert len(source.find(BEGINNING)) == (source.tokens[:-REACH] == SEPARATOR).sum()
    assert 40 < max(sizes) <= 128


def test_nothing_is_learned_of_nothing() -> None:
    pool = LivePool(reach=REACH)
    pool.add([], "a")
    assert pool.sources("a") == []


def test_what_was_handed_out_does_not_change() -> None:
    pool = LivePool(capacity=200, reach=REACH)
    pool.add([1, 2], None)
    before = pool.sources(None)
    for _ in range(100):
        pool.add([1, 3], None)
    assert paths_of(propose([[1]], [before], DRAFTING), 1) == [[((2,), 1.0)]]


def test_threads_may_share_it() -> None:
    pool, errors = LivePool(capacity=400, reach=REACH), []

    def work(token: int) -> None:
        try:
            for _ in range(100):
                pool.add([1, token], str(token))
                assert drafted(pool, 1, group=str(token)) == {(token,): 1.0}
                assert drafted(pool, 1)
        except Exception as error:
            errors.append(error)

    threads = [Thread(target=work, args=(token,)) for token in range(2, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_capacity_that_holds_no_window_is_refused() -> None:
    with pytest.raises(OptionError, match="live pool of 5 tokens; expected at least 28"):
        LivePool(capacity=5, reach=REACH)
