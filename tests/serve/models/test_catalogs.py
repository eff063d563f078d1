"""Catalogs of one model: after an update the lists are those of a fresh one, after a rollback as before."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted_recommender import MODES, assert_same, make, pairs
from scripted_search import random_catalog
from specbeam.catalog.errors import CatalogError
from specbeam.catalog.spelling import UnknownTokens
from specbeam.catalog.updates import CatalogUpdate, Entry
from specbeam.runtime import ItemFilter, Recommender
from specbeam.serve import AsyncRecommender, memory
from specbeam.serve.catalogs import Catalogs, NothingToRollBack
from specbeam.serve.editions import Edition
from swap_cases import changed, entries, grown, retitled, tiny_rows

EXACT = [name for name in MODES if name not in ("tolerant", "relaxed")]  # whose lists do not depend on the drafts


def lists(recommender: Recommender, histories: list[list[str]], k: int) -> list[list[tuple[str, float]]]:
    wanted = ItemFilter(deny=recommender.catalog.item_ids[::7])
    answers = recommender.recommend(histories, k) + recommender.recommend(histories, k, item_filter=wanted)
    return [pairs(answer) for answer in answers]


@settings(max_examples=15)
@pytest.mark.parametrize("mode", EXACT)
@given(seed=st.integers(0, 2**32 - 1))
def test_an_update_is_the_catalog_made_from_nothing_and_a_rollback_the_one_before(mode: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = int(rng.integers(2, 30))
    rows = grown(random_catalog(rng, items, int(rng.integers(1, 4)), 4), rng, int(rng.integers(1, 30)))
    kept = rng.random(len(rows)) < rng.uniform(0.3, 1)
    kept[[0, -1]] = True
    before, update, fresh = changed(rows, items, kept, MODES[mode])
    histories = [["i0"], ["i0", f"i{len(rows) - 1}", "i0"]]
    with AsyncRecommender(Edition("m", "1", "1", before)) as serving:
        catalogs, earlier = Catalogs(serving), lists(before, histories, 9)
        edition = catalogs.update(update)
        assert (edition.version, edition.catalog, catalogs.kept) == ("1", "2", ["1"])
        assert edition is serving.edition
        assert edition.recommender.catalog == fresh.catalog
        for got, expected in zip(lists(edition.recommender, histories, 9), lists(fresh, histories, 9), strict=True):
            assert_same(got, expected)
        served = serving.submit(histories[1], k=9).result(timeout=60)
        assert (served.version, served.catalog) == ("1", "2")
        assert_same(pairs(served.recommendation), lists(fresh, histories, 9)[1])
        assert catalogs.rollback().recommender is before
        assert lists(serving.edition.recommender, histories, 9) == earlier


def test_updates_of_updates_and_of_other_ways_to_verify() -> None:
    rows = tiny_rows()
    serving = AsyncRecommender(Edition("m", "1", "1", make(rows)))
    catalogs = Catalogs(serving)
    half = np.arange(len(rows)) < 15
    catalogs.update(CatalogUpdate(retire=tuple(f"i{i}" for i in range(15, 30))))
    catalogs.update(CatalogUpdate(add=entries(rows[15:], [f"i{i}" for i in range(15, 30)])))  # known from the bundle
    whole = serving.edition.recommender
    for name in EXACT:
        for kept, recommender in ((half | True, whole), (half, catalogs._earlier[-1].recommender)):
            fresh = make(rows, kept=kept, verification=MODES[name])
            (got,), (expected,) = (
                recommender.verifying(MODES[name]).recommend([["i3"]], 9),
                fresh.recommend([["i3"]], 9),
            )
            assert_same(pairs(got), pairs(expected))
    serving.close()


def test_the_last_two_are_kept_and_no_number_is_given_twice() -> None:
    serving = AsyncRecommender(Edition("m", "1", "1", make(tiny_rows())))
    catalogs = Catalogs(serving)
    with pytest.raises(NothingToRollBack, match="no catalog of 'm' is kept from before version 1; the last 2 are"):
        catalogs.rollback()
    assert [catalogs.update(retitled(n)).catalog for n in range(3)] == ["2", "3", "4"]
    assert catalogs.kept == ["2", "3"]
    assert [catalogs.rollback().catalog for _ in range(2)] == ["3", "2"]
    assert catalogs.update(retitled(9)).catalog == "5"
    assert catalogs.rollback().catalog == "2"
    with pytest.raises(NothingToRollBack):
        catalogs.rollback()
    serving.close()


def test_what_cannot_be_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    serving = AsyncRecommender(Edition("m", "1", "1", make(tiny_rows())))
    catalogs, before = Catalogs(serving), serving.edition
    unknown = Entry(item="new", identifier=("<1>", "<2>", "<3>"))
    with pytest.raises(UnknownTokens, match=r"1 items have tokens .*'new \(<1> <2> <3>\)'"):
        catalogs.update(CatalogUpdate(add=(unknown,)))
    with pytest.raises(CatalogError, match="not in the catalog"):
        catalogs.update(CatalogUpdate(retire=("none",)))
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    with pytest.raises(memory.NoRoom, match=r"the catalog would take about 0 MiB .* 0 MiB are free on the machine"):
        catalogs.update(retitled(1))
    monkeypatch.setattr(memory, "free_memory", lambda: None)  # nobody knows
    assert (serving.edition, catalogs.kept) == (before, [])
    assert catalogs.update(retitled(1)).catalog == "2"
    serving.close()


def test_requests_keep_the_catalog_that_they_came_by() -> None:
    recommender = make(tiny_rows())
    serving = AsyncRecommender(Edition("m", "1", "1", recommender))
    catalogs = Catalogs(serving)
    early = [serving.submit(["i1"], k=5) for _ in range(20)]
    catalogs.update(CatalogUpdate(retire=tuple(f"i{i}" for i in range(1, 30))))
    late = serving.submit(["i0"], k=5).result(timeout=60)
    assert [item.item for item in late.recommendation.items] == ["i0"]
    assert late.catalog == "2"
    expected = pairs(recommender.recommend([["i1"]], 5)[0])
    for future in early:
        assert future.result(timeout=60).catalog == "1"
        assert_same(pairs(future.result().recommendation), expected)
    serving.close()
