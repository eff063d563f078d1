"""Drafting from pools, against a trie of dictionaries that counts every window."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naive_pool import best_branches, paths_of
from specbeam.catalog.errors import OptionError, PoolError
from specbeam.pools import Source, TextDrafting, propose
from specbeam.pools.texts.lookup import UNIT, look_up
from specbeam.pools.texts.sources import BEGINNING, SEPARATOR, Scanned, joined
from specbeam.pools.texts.suffixes import Sorted, sort_suffixes

BIG = 40_000  # a vocabulary of which four tokens do not fit into 64 bits
alphabets = st.sampled_from([(0, 1), (0, 1, 2, 3), (7, 300, 70_000, 128_255, BIG)])
draftings = st.builds(
    TextDrafting, draft_tokens=st.integers(1, 30), depth=st.integers(1, 6), query=st.integers(1, 4),
    prompt_weight=st.sampled_from([0.0, 0.5, 1.0, 4.0]), min_share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    backoff=st.booleans(), occurrences=st.just(9999),
)  # fmt: skip


def drawn_texts(data: st.DataObject, tokens: tuple[int, ...], least: int = 0) -> list[list[int]]:
    text = st.lists(st.sampled_from(tokens), min_size=1, max_size=25)
    return data.draw(st.lists(text, min_size=least, max_size=6))


@settings(max_examples=300, deadline=None)
@given(st.data(), alphabets, draftings)
def test_branches_are_those_of_a_trie_of_all_windows(
    data: st.DataObject, tokens: tuple[int, ...], drafting: TextDrafting
) -> None:
    """Several sources of either kind and weight, a batch, and limits of their own for its requests."""
    texts, sources = [], []
    for kind, weight in ((Sorted.of, 1.0), (Sorted.of, 0.5), (Scanned, 1.0)):
        own = drawn_texts(data, tokens)
        texts += [(text, weight) for text in own]
        sources.append(kind(joined(own, drafting.reach), drafting.reach, weight))
    contexts = drawn_texts(data, tokens, least=1)
    depths = data.draw(st.lists(st.integers(0, 8), min_size=len(contexts), max_size=len(contexts)))
    branches = propose(contexts, [sources] * len(contexts), drafting, np.array(depths))
    for context, depth, got in zip(contexts, depths, paths_of(branches, len(contexts)), strict=True):
        limit = min(depth, drafting.depth)
        expected = best_branches(
            context, texts if limit else [], query=drafting.query, depth=limit, most=drafting.draft_tokens,
            prompt_weight=drafting.prompt_weight, min_share=drafting.min_share,
            suffixes=3 if drafting.backoff else 1,
        )  # fmt: skip
        assert got == expected


@settings(max_examples=200, deadline=None)
@given(st.data(), alphabets, st.integers(1, 20))
def test_suffixes_are_sorted_as_deep_as_asked(data: st.DataObject, alphabet: tuple[int, ...], depth: int) -> None:
    texts = drawn_texts(data, alphabet)
    tokens = joined(texts, depth)
    order = sort_suffixes(tokens, depth)
    assert sorted(order.tolist()) == list(range(sum(map(len, texts)) + len(texts)))
    rows = [tokens[place : place + depth].tolist() for place in order]
    assert rows == sorted(rows)


def test_a_request_drafts_from_its_own_sources() -> None:
    pools = [source([5, 6, 7]), source([5, 8, 9])]
    contexts = [[1, 5], [2, 5], [3, 5]]
    got = paths_of(propose(contexts, [[pools[0]], [pools[1]], pools], TextDrafting(draft_tokens=2)), 3)
    assert got == [[((6,), 1.0), ((6, 7), 1.0)], [((8,), 1.0), ((8, 9), 1.0)], [((6,), 0.5), ((8,), 0.5)]]


def test_a_longer_query_is_preferred_and_a_shorter_one_falls_in() -> None:
    pool = source([1, 5, 6], [2, 5, 7], [2, 5, 7])
    assert paths_of(propose([[1, 5]], [[pool]], TextDrafting()), 1) == [[((6,), 1.0)]]
    assert paths_of(propose([[9, 5]], [[pool]], TextDrafting()), 1) == [[((7,), 2 / 3), ((6,), 1 / 3)]]
    assert paths_of(propose([[9, 4]], [[pool]], TextDrafting()), 1) == [[]]


def test_what_texts_begin_with_follows_a_fresh_prompt() -> None:
    pool = source([4, 5], [4, 6], [7, 8])
    drafting = TextDrafting(draft_tokens=3)
    got = paths_of(propose([[5, 9], [5, 9]], [[pool]] * 2, drafting, None, np.array([True, False])), 2)
    assert got == [[((4,), 2 / 3), ((7,), 1 / 3), ((4, 5), 1 / 3)], []]
    empty = Sorted.of(joined([], 16), 16)
    assert paths_of(propose([[5, 6, 5]], [[empty]], drafting, None, np.array([True])), 1)[0][0] == ((6,), 1.0)


@pytest.mark.parametrize("kind", [Sorted.of, Scanned])
def test_many_occurrences_are_sampled(kind: type[Scanned]) -> None:
    """Weights are scaled up, so that shares do not depend on how many are looked at."""
    texts = [[1, 2, 10 + i // 256, 20 + i] for i in range(1024)]
    pool, rare = kind(joined(texts, 16), 16, 1.0), source([1, 2, 99])
    places = look_up(0, [1, 2], [pool, rare], TextDrafting(occurrences=64), fresh=False)
    assert [len(part.at) for part in places] == [64, 1]
    assert [len(part.at) * part.weight / UNIT for part in places] == [1024, 1]
    assert len(set(places[0].at.tolist())) == 64
    shares = dict(paths_of(propose([[1, 2]], [[pool]], TextDrafting(occurrences=64, draft_tokens=4)), 1)[0])
    assert shares == {(10 + i,): 0.25 for i in range(4)}
    shares = dict(paths_of(propose([[1, 2]], [[pool, rare]], TextDrafting(occurrences=64, draft_tokens=999)), 1)[0])
    assert shares[(99,)] == pytest.approx(1 / 1025)
    assert shares[(10,)] == pytest.approx(256 / 1025)


def test_places_are_looked_at_in_the_sources_proportions() -> None:
    many, few, none = source(*[[1, 2]] * 600), source(*[[1, 3]] * 200), source([5])
    places = look_up(0, [1], [many, none, few], TextDrafting(occurrences=100), fresh=False)
    assert [(part.source, len(part.at), part.weight / UNIT) for part in places] == [(many, 75, 8.0), (few, 25, 8.0)]
    places = look_up(0, [1], [many], TextDrafting(occurrences=600), fresh=False)
    assert [(len(part.at), part.weight / UNIT) for part in places] == [(600, 1.0)]


def test_back_off_fills_up_with_what_follows_shorter_suffixes() -> None:
    pool = source([1, 2, 3], [9, 2, 4], [9, 2, 4], [8, 2, 5])
    assert paths_of(propose([[1, 2]], [[pool]], TextDrafting()), 1) == [[((3,), 1.0)]]
    got = paths_of(propose([[1, 2]], [[pool]], TextDrafting(backoff=True)), 1)[0]
    assert [path for path, _ in got] == [(3,), (4,), (5,)]
    assert [share for _, share in got] == pytest.approx([65 / 68, 2 / 68, 1 / 68])


@pytest.mark.parametrize("kind", [Sorted.of, Scanned])
def test_where_a_query_ends_a_text_nothing_follows(kind: type[Scanned]) -> None:
    pool = kind(joined([[1, 2, 3], [2, 3], [3, 2, 3, 4]], 16), 16, 1.0)
    assert pool.find([2, 3]).tolist() == [9]
    assert [len(pool.find([token])) for token in (1, 2, 3, 4, 5)] == [1, 3, 2, 0, 0]
    assert len(pool.find([3, 1])) == len(pool.find([1, 2, 3])) == 0
    assert sorted(pool.tokens[pool.find(BEGINNING) + 1].tolist()) == [1, 2, 3]
    assert (pool.tokens[-16:] == SEPARATOR).all()


def test_nothing_is_drafted_where_nothing_is_wanted_or_known() -> None:
    pool = source([1, 2])
    for branches in (
        propose([[1]], [[pool]], TextDrafting(), np.array([0])),
        propose([[1]], [[]], TextDrafting()),
        propose([], [], TextDrafting()),
        propose([[]], [[pool]], TextDrafting()),
    ):
        assert [len(part) for part in branches] == [0] * 5
        assert [part.dtype.kind for part in branches] == list("iiiif")


def test_options_out_of_range_are_refused() -> None:
    for name in ("draft_tokens", "depth", "query", "occurrences"):
        with pytest.raises(OptionError, match=f"{name} is 0, expected a whole number, 1 to"):
            TextDrafting(**{name: 0})
    with pytest.raises(OptionError, match="prompt weight of -1; expected 0 to"):
        TextDrafting(prompt_weight=-1)
    with pytest.raises(OptionError, match=r"least share of 1\.5; expected 0 to 1"):
        TextDrafting(min_share=1.5)


def test_windows_longer_than_the_pool_s_are_refused() -> None:
    with pytest.raises(PoolError, match=r"windows have 16 tokens; a query of 4 and a depth of 20 need 24\. Build it"):
        propose([[1]], [[source([1, 2])]], TextDrafting(depth=20))


def source(*texts: list[int]) -> Source:
    return Sorted.of(joined(texts, 16), 16)
