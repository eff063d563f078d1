"""Where memory is limited, calls are cut and batches become smaller; the lists are the same."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted_reader import ScriptedReader
from scripted_recommender import MODES
from scripted_search import ragged_catalog, random_catalog, search
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.base import Float32, ForwardInputs, Int64
from specbeam.engines.cache import KVCache, ReadCache
from specbeam.engines.footprint import Footprint, Reading
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.search.call_room import CallRoom, CallSize
from specbeam.runtime.types import DraftShape

FOOTPRINT = Footprint(slot=3, token=50, pair=2, row=400)
READING = Reading(slot=3, token=50, pair=2, cross=1)
READER = replace(FOOTPRINT, reading=READING)


class Weighed(ScriptedEngine):
    """Remembers what each of its calls took, by the footprint, and how many tokens and rows each had."""

    def __init__(self, columns: int, *, seed: int, disagreement: float = 0.0) -> None:
        super().__init__(columns, seed=seed, disagreement=disagreement, footprint=FOOTPRINT)
        self.calls: list[tuple[int, int, int]] = []  # bytes, tokens, rows

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        (batch, new), rows = inputs.input_ids.shape, inputs.logit_rows.shape[1]
        self.calls.append((FOOTPRINT.call(batch, new, cache.length, rows), new, rows))
        return super().forward(inputs, cache)


class WeighedReader(ScriptedReader):
    """The same of an engine whose encoder reads the prompts: also what each reading took, and of how many prompts."""

    def __init__(self, columns: int, *, seed: int, disagreement: float = 0.0) -> None:
        super().__init__(columns, seed=seed, disagreement=disagreement, footprint=READER)
        self.calls: list[tuple[int, int]] = []  # bytes, tokens
        self.readings: list[tuple[int, int]] = []  # bytes, prompts

    def read(self, prompts: Sequence[Int64]) -> ReadCache:
        self.readings.append((READING.call(len(prompts), max(map(len, prompts))), len(prompts)))
        return super().read(prompts)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        (batch, new), rows = inputs.input_ids.shape, inputs.logit_rows.shape[1]
        self.calls.append((READER.call(batch, new, cache.length, rows, cache.read), new))
        return super().forward(inputs, cache)


@given(
    seed=st.integers(0, 10**6), mode=st.sampled_from(list(MODES)), ragged=st.booleans(), width=st.integers(1, 25),
    batch=st.integers(1, 5), shared=st.sampled_from([0, 20]), drafts=st.booleans(), steady=st.booleans(),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_lists_are_the_same_whatever_is_left(
    seed: int, mode: str, ragged: bool, width: int, batch: int, shared: int, drafts: bool, steady: bool
) -> None:
    rng = np.random.default_rng(seed)
    rows = (ragged_catalog if ragged else random_catalog)(rng, int(rng.integers(1, 100)), int(rng.integers(1, 5)), 5)
    trie = ItemTrie.build(rows)
    beginning = rng.integers(0, 99, shared)
    prompts = [np.append(beginning, rng.integers(0, 99, rng.integers(1, 30))) for _ in range(batch)]
    more = {"verification": MODES[mode], "shape": DraftShape(int(rng.integers(1, 9)), 2), "shared": shared}

    def engines() -> tuple[Weighed, Weighed | None]:
        columns = len(trie.vocabulary)
        return Weighed(columns, seed=seed), Weighed(columns, seed=seed, disagreement=0.4) if drafts else None

    target, draft = engines()
    expected, unlimited, _ = search(trie, target, prompts, width, draft=draft, **more)  # type: ignore[arg-type]
    least = int(rng.integers(0, 60_000))
    left: Callable[[int], int] = (lambda _: least) if steady else lambda _: int(rng.integers(0, 60_000))
    target, draft = engines()
    got, limited, _ = search(trie, target, prompts, width, draft=draft, room=CallRoom(left), **more)  # type: ignore[arg-type]
    assert got == expected
    if steady:
        begun = -(-shared // 256)  # the shared beginning is computed before anything is limited
        for engine in (target, draft) if draft else (target,):
            assert all(taken <= least or new == 1 for taken, new, _ in engine.calls[begun:])
    if not drafts:
        assert (limited.calls >= unlimited.calls).all()
        np.testing.assert_array_equal(limited.evaluated, unlimited.evaluated)


@given(
    seed=st.integers(0, 10**6), mode=st.sampled_from(list(MODES)), width=st.integers(1, 25), batch=st.integers(1, 9),
    reads=st.sampled_from(["both", "the target", "the draft"]), steady=st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_lists_are_the_same_where_an_encoder_reads(
    seed: int, mode: str, width: int, batch: int, reads: str, steady: bool
) -> None:
    rng = np.random.default_rng(seed)
    trie = ItemTrie.build(random_catalog(rng, int(rng.integers(1, 100)), int(rng.integers(1, 5)), 5))
    prompts = [rng.integers(0, 99, rng.integers(1, 30)) for _ in range(batch)]
    more = {"verification": MODES[mode], "shape": DraftShape(int(rng.integers(1, 9)), 2)}
    kinds = [WeighedReader if reads in ("both", who) else Weighed for who in ("the target", "the draft")]

    def engines() -> list[Weighed | WeighedReader]:
        columns = len(trie.vocabulary)
        return [kind(columns, seed=seed, disagreement=d) for kind, d in zip(kinds, (0.0, 0.4), strict=True)]

    target, draft = engines()
    expected, _, _ = search(trie, target, prompts, width, draft=draft, **more)  # type: ignore[arg-type]
    least = int(rng.integers(0, 60_000))
    left: Callable[[int], int] = (lambda _: least) if steady else lambda _: int(rng.integers(0, 60_000))
    target, draft = engines()
    got, _, _ = search(trie, target, prompts, width, draft=draft, room=CallRoom(left), **more)  # type: ignore[arg-type]
    assert got == expected
    for engine in (target, draft):
        if isinstance(engine, WeighedReader) and steady:
            assert all(taken <= least or new == 1 for taken, new in engine.calls)
            assert all(taken <= least or count == 1 for taken, count in engine.readings)
            assert sum(count for _, count in engine.readings) in (0, batch)


def test_prompts_are_read_so_many_at_a_time() -> None:
    rng = np.random.default_rng(0)
    trie = ItemTrie.build(random_catalog(rng, 100, 3, 6))
    prompts = [rng.integers(0, 99, 40) for _ in range(11)]
    target = WeighedReader(len(trie.vocabulary), seed=1)
    limit = READING.call(4, 40) + READER.cache(11, 0, 40)
    search(trie, target, prompts, 5, room=CallRoom(lambda _: limit))
    assert [count for _, count in target.readings] == [4, 4, 3]
    target.readings.clear()
    search(trie, target, prompts, 5, room=CallRoom(lambda _: READING.call(11, 40)))
    assert [count for _, count in target.readings] == [11]


def test_long_prompts_and_wide_beams_are_cut_by_tokens_and_by_nodes() -> None:
    rng = np.random.default_rng(0)
    trie = ItemTrie.build(random_catalog(rng, 3000, 4, 12))
    prompts = [rng.integers(0, 99, size) for size in (300, 150, 3)]
    target = Weighed(len(trie.vocabulary), seed=1)
    expected, whole, _ = search(trie, target, prompts, 500)
    largest = max(taken for taken, _, _ in target.calls)
    assert (len(target.calls), whole.calls.tolist()) == (4, [4, 4, 4])
    target.calls.clear()
    limit = largest // 20
    got, cut, _ = search(trie, target, prompts, 500, room=CallRoom(lambda _: limit))
    assert got == expected
    assert max(taken for taken, _, _ in target.calls) <= limit
    assert len(target.calls) > 20
    # The short prompt is read by the first of the calls that bring the long ones, and has no part in the others.
    assert cut.calls[0] > cut.calls[1] > cut.calls[2] > 4
    np.testing.assert_array_equal(cut.evaluated, whole.evaluated)


def test_drafts_are_left_out_where_they_would_take_what_is_needed_later() -> None:
    rng = np.random.default_rng(0)
    trie = ItemTrie.build(random_catalog(rng, 400, 4, 8))
    prompts = [rng.integers(0, 99, 6) for _ in range(4)]

    def drafted(left: int, mode: str) -> int:
        target, draft = (Weighed(len(trie.vocabulary), seed=1, disagreement=part) for part in (0.0, 0.3))
        _, _, stats = search(
            trie, target, prompts, 10, draft=draft, shape=DraftShape(15, 3), verification=MODES[mode],
            room=CallRoom(lambda _: left),
        )  # fmt: skip
        return stats.nodes_drafted

    for mode in ("strict, full", "sampled"):
        assert drafted(10**9, mode) > drafted(4000, mode) == 0
    # their lists depend on what was drafted
    for mode in ("tolerant", "relaxed"):
        assert drafted(10**9, mode) == drafted(4000, mode) > 0


@pytest.mark.parametrize(("left", "tokens"), [(0, 1), (10**3, 1), (4 * 10**3, 4), (5 * 10**3, 4), (10**6, 100)])
def test_a_call_has_all_tokens_or_a_power_of_two(left: int, tokens: int) -> None:
    call = CallSize(Footprint(slot=0, token=0, pair=0, row=1000), batch=1, past=0, unscored=0, children=0)
    assert CallRoom(lambda _: left).tokens(call, 100) == tokens


def test_a_prompts_tokens_have_no_rows_of_logits() -> None:
    head = Footprint(row=1000)
    assert CallSize(head, batch=2, past=0, unscored=99, children=0).bytes(100) == 2000
    assert CallSize(head, batch=2, past=0, unscored=100, children=0).bytes(50) == 2000
    assert CallSize(head, batch=2, past=0, unscored=0, children=0).bytes(50) == 100_000
