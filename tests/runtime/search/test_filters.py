"""Allow- and deny-lists and excluded histories: the answer of a catalog that holds nothing else."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted_recommender import MODES, assert_same, by_the_book, make, named, pairs
from scripted_search import live_mask, ragged_catalog, random_catalog
from specbeam.catalog.errors import OptionError
from specbeam.catalog.trie import ItemTrie
from specbeam.runtime import DraftShape, ItemFilter
from specbeam.runtime.search import filters
from specbeam.runtime.search.filters import REMEMBERED, FilterCompiler
from specbeam.runtime.types import CompiledFilter

UNKNOWN = frozenset({"nobody", ""})
catalogs = st.fixed_dictionaries(
    {"seed": st.integers(0, 10**6), "ragged": st.booleans(), "items": st.integers(1, 60), "length": st.integers(1, 4),
     "codes": st.integers(1, 4)}
)  # fmt: skip  # few codes: many items share an identifier


def rows_of(seed: int, ragged: bool, items: int, length: int, codes: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (ragged_catalog if ragged else random_catalog)(rng, items, length, codes)


def some(rng: np.random.Generator, items: Sequence[str], share: float) -> frozenset[str]:
    return frozenset(item for item in items if rng.random() < share)


def random_filter(rng: np.random.Generator, items: Sequence[str]) -> ItemFilter:
    """With or without either list; at times nothing is left, at times ids are unknown."""
    allow = None if rng.random() < 0.4 else some(rng, items, rng.choice([0.0, 0.2, 0.8]))
    deny = some(rng, items, rng.choice([0.0, 0.3, 1.0], p=[0.4, 0.5, 0.1]))
    unknown = UNKNOWN if rng.random() < 0.5 else frozenset()
    return ItemFilter(None if allow is None else allow | unknown, deny | unknown)


def left(wanted: ItemFilter | None, items: Sequence[str], excluded: Sequence[str] = ()) -> list[str]:
    """What a filter leaves, by sets."""
    wanted = wanted or ItemFilter()
    rest = set(items) if wanted.allow is None else set(items) & wanted.allow
    rest -= wanted.deny | set(excluded)
    return [item for item in items if item in rest]


def compiler_of(rows: np.ndarray) -> tuple[FilterCompiler, ItemTrie, tuple[str, ...]]:
    catalog, trie = named(rows), ItemTrie.build(rows)
    return FilterCompiler(catalog, trie), trie, catalog.item_ids


def check(compiled: CompiledFilter, trie: ItemTrie, items: Sequence[str], expected: Sequence[str]) -> None:
    """Against one item and one path at a time."""
    allowed = compiled.allows(np.arange(len(items)))
    assert [items[i] for i in np.flatnonzero(allowed)] == list(expected)
    assert compiled.count == len(expected)
    leaves = trie.leaf_of[allowed].tolist()
    assert compiled.identifiers == len(set(leaves))
    live = live_mask(trie, leaves)
    live[0] = True  # the root is there even where nothing is allowed
    assert compiled.leads(np.arange(len(trie.parent))).tolist() == live.tolist()


# --- compiling


@given(catalog=catalogs, seed=st.integers(0, 10**6), excluding=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
@settings(max_examples=300, deadline=None)
def test_a_compiled_filter_is_brute_force(catalog: dict[str, int], seed: int, excluding: float) -> None:
    rng = np.random.default_rng(seed)
    compiler, trie, items = compiler_of(rows_of(**catalog))  # type: ignore[arg-type]
    wanted = random_filter(rng, items) if rng.random() < 0.8 else None
    excluded = sorted(some(rng, items, excluding))
    places = [items.index(item) for item in excluded]
    rng.shuffle(places)
    base = compiler.compile(wanted)
    compiled = compiler.without(base, np.array([*places, *places[:2]], int))  # a history may hold an item twice
    if compiled is None:
        assert wanted in (None, ItemFilter())
        assert not excluded
        return
    check(compiled, trie, items, left(wanted, items, excluded))
    # what is excluded is what would be denied: a few paths instead of all
    wanted = wanted or ItemFilter()
    dense = compiler.compile(ItemFilter(wanted.allow, wanted.deny | set(excluded)))
    if dense is not None:
        check(dense, trie, items, left(wanted, items, excluded))


@given(catalog=catalogs, seed=st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_in_a_large_catalog_short_lists_are_the_same(catalog: dict[str, int], seed: int) -> None:
    """Lists in place of masks, on top of a long list that all requests share, and without a history."""
    rng = np.random.default_rng(seed)
    compiler, trie, items = compiler_of(rows_of(**catalog))  # type: ignore[arg-type]
    a, b = random_filter(rng, items), random_filter(rng, items)
    excluded = sorted(some(rng, items, 0.2))
    places = np.array([items.index(item) for item in excluded], int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "LARGE", 0)
        patch.setattr(filters, "LONG", 0)
        patch.setattr(filters, "FEW", int(rng.choice([0, 5, 100])))
        compiled = compiler.without(compiler.compile(a.both(b)), places)
    expected = [item for item in left(a, items, excluded) if item in left(b, items)]
    if compiled is None:
        assert len(expected) == len(items)
    else:
        check(compiled, trie, items, expected)


def test_a_long_list_is_compiled_once_whatever_requests_deny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "LONG", 2)
    compiler, trie, items = compiler_of(np.arange(100)[:, None])
    shared = ItemFilter(deny=items[:3])
    base = compiler.compile(shared)
    assert base is not None
    compiled = compiler.compile(shared.both(ItemFilter(deny=["i7"])))
    assert compiled is not None
    assert (compiled.items is base.items, compiled.live is base.live) == (True, True)
    check(compiled, trie, items, [*items[3:7], *items[8:]])
    few = compiler.compile(shared.both(ItemFilter(["i1", "i9"])))
    assert few is not None
    check(few, trie, items, ["i9"])


def test_a_leaf_lives_while_any_of_its_items_is_allowed() -> None:
    compiler, trie, _ = compiler_of(np.array([[1, 5], [2, 5], [1, 5], [1, 6]]))
    shared = int(trie.leaf_of[0])
    one, both = compiler.compile(ItemFilter(deny=frozenset({"i0"}))), compiler.without(None, np.array([2, 0]))
    assert one is not None
    assert both is not None
    nodes = np.array([shared, trie.parent[shared]])
    assert one.leads(nodes).tolist() == [True, True]
    assert both.leads(nodes).tolist() == [False, True]  # the other child is alive
    assert one.allows(np.arange(4)).tolist() == [False, True, True, True]


def test_lists_are_compiled_once_and_shared() -> None:
    compiler, trie, items = compiler_of(np.arange(100)[:, None])
    lists = [ItemFilter(deny=frozenset({item})) for item in items]
    first = compiler.compile(lists[0])
    assert first is not None
    assert compiler.compile(ItemFilter(deny=frozenset({"i0"}))) is first  # by what it says
    excluded = compiler.without(first, np.array([7]))
    assert excluded is not None
    check(first, trie, items, items[1:])  # the shared one is as it was
    assert excluded.items is first.items  # and no copy of it was made
    assert excluded.live is first.live
    check(excluded, trie, items, [*items[1:7], *items[8:]])
    second = compiler.compile(lists[1])
    for wanted in lists[2:REMEMBERED]:
        compiler.compile(wanted)
    assert compiler.compile(lists[0]) is first  # and so it is the second that was not used for longest
    compiler.compile(lists[REMEMBERED])
    assert compiler.compile(lists[0]) is first
    assert compiler.compile(lists[1]) is not second
    assert compiler.compile(None) is compiler.compile(ItemFilter()) is None
    assert compiler.without(first, np.array([], int)) is first


def test_requests_that_wait_hold_no_masks_of_their_own() -> None:
    recommender = make(np.arange(100)[:, None])
    wanted = ItemFilter(deny=frozenset({"i5"}))
    requests = [recommender.encode([f"i{i}"], item_filter=wanted, exclude_history=True) for i in range(50)]
    assert len({id(request.filter) for request in requests}) == 1
    assert recommender.encode(["i1"], exclude_history=True).filter is None
    for i, result in enumerate(recommender.run(requests, 100)):
        assert {item for item, _ in pairs(result)} == set(recommender.catalog.item_ids) - {"i5", f"i{i}"}


def test_threads_share_a_compiler() -> None:
    compiler, trie, items = compiler_of(random_catalog(np.random.default_rng(0), 200, 3, 5))
    lists = [ItemFilter(deny=frozenset(items[i : i + 20])) for i in range(2 * REMEMBERED)]
    with ThreadPoolExecutor(4) as pool:
        compiled = list(pool.map(compiler.compile, lists * 3))
    for wanted, result in zip(lists * 3, compiled, strict=True):
        assert result is not None
        check(result, trie, items, left(wanted, items))


@given(catalog=catalogs, seed=st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_both_filters_allow_what_each_of_them_allows(catalog: dict[str, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = named(rows_of(**catalog)).item_ids  # type: ignore[arg-type]
    a, b = random_filter(rng, items), random_filter(rng, items)
    assert left(a.both(b), items) == [item for item in left(a, items) if item in left(b, items)]
    assert a.both(ItemFilter()) == ItemFilter().both(a) == a


def test_a_long_list_that_all_share_is_neither_copied_nor_hashed_anew() -> None:
    long = ItemFilter(frozenset(map(str, range(100))), frozenset({"x", "y"}))
    for combined in (long.both(ItemFilter()), ItemFilter().both(long)):
        assert combined.allow is long.allow
        assert combined.deny is long.deny


def test_a_filter_takes_any_collection_but_no_text() -> None:
    wanted = ItemFilter(["b", "a"], {"c"})  # type: ignore[arg-type]
    assert wanted == ItemFilter(frozenset({"a", "b"}), frozenset({"c"}))
    assert hash(wanted) == hash(ItemFilter(frozenset({"a", "b"}), frozenset({"c"})))
    for options in ({"allow": "ab"}, {"deny": "ab"}):
        with pytest.raises(OptionError, match=r"(allow|deny) is 'ab', expected a list of item ids: put it into"):
            ItemFilter(**options)  # type: ignore[arg-type]


# --- recommending


@given(
    catalog=catalogs,
    seed=st.integers(0, 10**6),
    ks=st.lists(st.sampled_from([1, 2, 3, 7, 20, 100]), min_size=1, max_size=5),
    mode=st.sampled_from(["strict, full", "strict, constrained"]),
    shape=st.none() | st.builds(DraftShape, st.integers(1, 12), st.integers(1, 4)),
    batch_size=st.integers(1, 5),
)
@settings(max_examples=150, deadline=None)
def test_lists_histories_and_lengths_together_are_by_the_book(
    catalog: dict[str, int], seed: int, ks: list[int], mode: str, shape: DraftShape | None, batch_size: int
) -> None:
    rng = np.random.default_rng(seed)
    recommender = make(
        rows_of(**catalog), seed=seed, verification=MODES[mode], shape=shape, batch_size=batch_size  # type: ignore[arg-type]
    )  # fmt: skip
    items = recommender.catalog.item_ids
    asked = []
    for k in ks:
        history = rng.choice(items, rng.integers(1, 6)).tolist()
        wanted = random_filter(rng, items) if rng.random() < 0.7 else None
        asked.append((history, k, wanted, bool(rng.random() < 0.5)))
    results = recommender.run([
        recommender.encode(history, k=k, item_filter=wanted, exclude_history=exclude)
        for history, k, wanted, exclude in asked
    ])  # fmt: skip
    for (history, k, wanted, exclude), result in zip(asked, results, strict=True):
        allowed = left(wanted, items, history if exclude else ())
        assert_same(pairs(result), by_the_book(recommender, history, k, allowed))
        assert len(result.items) == min(k, len(allowed))
        assert result.available == (len(allowed) if len(allowed) < k else None)


@pytest.mark.parametrize("mode", MODES)
@given(catalog=catalogs, seed=st.integers(0, 10**6), share=st.sampled_from([0.1, 0.5, 0.9]), k=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_a_filter_gives_what_a_catalog_without_the_forbidden_items_gives(
    mode: str, catalog: dict[str, int], seed: int, share: float, k: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = rows_of(**catalog)  # type: ignore[arg-type]
    kept = rng.random(len(rows)) < share
    kept[rng.integers(len(rows))] = True
    options = {"seed": seed, "verification": MODES[mode]}
    whole, rebuilt = make(rows, **options), make(rows, kept=kept, **options)  # type: ignore[arg-type]
    items = whole.catalog.item_ids
    allow = frozenset(items[i] for i in np.flatnonzero(kept))
    requests = [
        whole.encode(rng.choice(items, rng.integers(1, 4)).tolist(), user=str(user), item_filter=ItemFilter(allow))
        for user in range(5)
    ]
    expected = rebuilt.run(
        [replace(request, filter=None, trie=rebuilt.trie) for request in requests], k
    )  # of the same prompts
    for got, wanted in zip(whole.run(requests, k), expected, strict=True):
        assert_same(pairs(got), pairs(wanted))
        assert (got.available, got.stats.target_calls) == (wanted.available, wanted.stats.target_calls)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ragged", [False, True])
def test_one_batch_of_different_requests_is_each_of_them_alone(mode: str, ragged: bool) -> None:
    rng = np.random.default_rng(5)
    recommender = make(rows_of(5, ragged, 300, 4, 5), verification=MODES[mode], batch_size=50)
    items = recommender.catalog.item_ids
    requests = []
    for number, k in enumerate([1, 3, 20, 20, 3, 1, 7, 200, 20]):
        wanted = None if number % 3 == 0 else ItemFilter(deny=some(rng, items, 0.5))
        history = rng.choice(items, 1 + number % 4).tolist()
        requests.append(recommender.encode(history, k=k, user=str(number), item_filter=wanted))
    requests.append(recommender.encode(items[:1], user="last", exclude_history=True))  # as many as all others
    requests.append(recommender.encode(items[:1], k=5, user="nothing", item_filter=ItemFilter(frozenset())))
    together = recommender.run(requests, 4)
    for request, result in zip(requests, together, strict=True):
        (alone,) = recommender.run([request], 4)
        assert_same(pairs(result), pairs(alone))
        assert result.available == alone.available
        assert len(result.items) == min(request.k or 4, 300 if result.available is None else result.available)
    assert together[-1].available == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("drafting", [False, True])
def test_nothing_is_allowed(mode: str, drafting: bool) -> None:
    shape = DraftShape(4, 2) if drafting else None
    recommender = make(rows_of(1, True, 30, 3, 3), verification=MODES[mode], shape=shape, batch_size=3)
    items, nothing = recommender.catalog.item_ids, ItemFilter(frozenset())

    def answers(*histories: Sequence[str], **asked: object) -> list[tuple[int, int | None, int]]:
        results = recommender.recommend(histories, 4, **asked)  # type: ignore[arg-type]
        return [(len(r.items), r.available, r.stats.target_calls) for r in results]

    assert answers(*[items[:2]] * 5, item_filter=nothing) == [(0, 0, 0)] * 5
    assert answers(items[:2], item_filter=ItemFilter(UNKNOWN)) == [(0, 0, 0)]
    assert answers(items[:2], item_filter=ItemFilter(deny=frozenset(items))) == [(0, 0, 0)]
    # beside others, whose first call brings all prompts of the batch
    beside = answers(items, items[:3], items, items[:3], exclude_history=True)
    assert [answer[:2] for answer in beside] == [(0, 0), (4, None)] * 2
    empty = recommender.encode(items[:2], item_filter=nothing)
    full = recommender.encode(items[:2], user="u")
    mixed = recommender.run([empty, full, empty], 4)
    assert [len(result.items) for result in mixed] == [0, 4, 0]
    assert_same(pairs(mixed[1]), pairs(recommender.run([full], 4)[0]))
    assert recommender.stats.requests == 5 + 1 + 1 + 4 + 3 + 1


def test_the_denied_twin_is_not_in_the_list() -> None:
    recommender = make(np.array([[1, 5], [2, 5], [1, 5], [1, 6], [1, 5]]))  # i0, i2 and i4 share an identifier
    for deny, expected in (({"i2"}, ["i0", "i4"]), ({"i0", "i4"}, ["i2"]), ({"i0", "i2", "i4"}, [])):
        (result,) = recommender.recommend([["i1"]], 5, item_filter=ItemFilter(deny=frozenset(deny)))
        names = [item for item, _ in pairs(result)]
        assert [name for name in names if name in ("i0", "i2", "i4")] == expected
        assert (len(names), result.available) == (5 - len(deny), 5 - len(deny))
    (result,) = recommender.recommend([["i4", "?"]], 4, exclude_history=True)  # its twins may be recommended
    assert sorted(item for item, _ in pairs(result)) == ["i0", "i1", "i2", "i3"]
    assert result.available is None


def test_a_filter_costs_no_calls_and_can_save_some() -> None:
    recommender = make(rows_of(3, False, 200, 4, 6), shape=None, verification=MODES["strict, constrained"])
    few = ItemFilter(frozenset({"i3", "i70"}))
    history = [["i1", "i2"]]
    (whole,), (filtered,) = recommender.recommend(history, 5), recommender.recommend(history, 5, item_filter=few)
    assert len(filtered.items) == filtered.available == 2
    assert np.isclose(np.exp([score for _, score in pairs(filtered)]).sum(), 1)
    assert filtered.stats.target_calls == 1 < whole.stats.target_calls
