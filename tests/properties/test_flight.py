"""Requests that join and leave between rounds get the lists that they get alone."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted_recommender import MODES, assert_same, make, pairs
from scripted_search import ragged_catalog, random_catalog
from specbeam.runtime import DraftShape, ItemFilter, Recommendation, Recommender
from specbeam.runtime.flight import Flight
from specbeam.runtime.stats import DecodeStats
from specbeam.runtime.types import Request

EXACT = [name for name in MODES if name not in ("tolerant", "relaxed")]  # whose lists do not depend on the drafts


def identifiers(rng: np.random.Generator) -> np.ndarray:
    """A random catalog, of equal or of unequal lengths."""
    make_rows = random_catalog if rng.random() < 0.5 else ragged_catalog
    return make_rows(rng, int(rng.integers(2, 40)), int(rng.integers(2, 5)), 4)


def asked(recommender: Recommender, rng: np.random.Generator) -> Request:
    """A random request, which may have a filter and a K of its own."""
    ids = recommender.catalog.item_ids
    history = [ids[i] for i in rng.integers(len(ids), size=int(rng.integers(1, 6)))]
    deny = [ids[i] for i in rng.integers(len(ids), size=2)]
    return recommender.encode(
        history, k=int(rng.integers(1, 8)), item_filter=ItemFilter(deny=deny) if rng.random() < 0.4 else None,
        exclude_history=bool(rng.random() < 0.3),
    )  # fmt: skip


def flown(
    recommender: Recommender, requests: Sequence[Request], rng: np.random.Generator, stats: DecodeStats
) -> dict[int, Recommendation]:
    """All lists, of requests that join one flight in groups at any round; some give up."""
    waiting, seats, found = list(range(len(requests))), list[int](), dict[int, Recommendation]()
    flight: Flight | None = None
    while waiting or (flight is not None and flight.running):
        joining = [waiting.pop(0) for _ in range(min(len(waiting), int(rng.integers(0, 4))))]
        if flight is None:
            joining = joining or [waiting.pop(0)]
            flight = recommender._search.flight([requests[i] for i in joining], 5, recommender.planning, stats)
            seats = joining
        elif joining:
            kept = np.flatnonzero([number not in found for number in seats])
            flight.reseat(kept, [requests[i] for i in joining])
            seats = [seats[seat] for seat in kept.tolist()] + joining
        if flight.running:
            flight.round()
        landed = [seat for seat in flight.landed.tolist() if seats[seat] not in found]
        for seat, answer in zip(landed, flight.answers(np.array(landed, np.int64)), strict=True):
            assert answer is not None
            found[seats[seat]] = answer
    assert flight is not None
    flight.end()
    return found


@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize("shape", [None, DraftShape(6, 2)])
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_whoever_joins_gets_its_own_list(mode: str, shape: DraftShape | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = identifiers(rng)
    recommender = make(
        rows, seed=seed % 1000, shape=shape, verification=MODES[mode], reuse=bool(rng.random() < 0.8),
        reads=seed % 3 == 0,
    )  # fmt: skip
    requests = [asked(recommender, rng) for _ in range(int(rng.integers(1, 12)))]
    stats = DecodeStats(recommender.trie.length, log=[])
    found = flown(recommender, requests, rng, stats)
    assert sorted(found) == list(range(len(requests)))
    for number, request in enumerate(requests):
        alone = recommender.run([request], 5)[0]
        assert isinstance(alone, Recommendation)
        assert_same(pairs(found[number]), pairs(alone))
        assert (found[number].available, found[number].unknown_items) == (alone.available, alone.unknown_items)
    assert stats.requests == len(requests)
    assert stats.target_calls == sum(one.stats.target_calls for one in found.values())


def test_slots_are_given_back() -> None:
    rng = np.random.default_rng(5)
    recommender = make(random_catalog(rng, 60, 3, 5), shape=DraftShape(6, 2))
    ids = recommender.catalog.item_ids
    requests = [recommender.encode([ids[i % len(ids)]] * 3, k=4) for i in range(60)]
    stats, longest = DecodeStats(recommender.trie.length), 0
    flight = recommender._search.flight(requests[:2], 4, recommender.planning, stats)
    for number in range(2, 60):
        flight.round()
        flight.reseat(np.flatnonzero(flight._session.frontier.active), [requests[number]])
        cache = flight._parts.target._cache
        longest = max(longest, 0 if cache is None else cache.length)
    alone = recommender._search.flight(requests[:1], 4, recommender.planning, DecodeStats(recommender.trie.length))
    while alone.running:
        alone.round()
    last = alone._parts.target._cache
    assert last is not None
    assert longest <= 2 * last.length
