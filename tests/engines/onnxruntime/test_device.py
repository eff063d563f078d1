"""ONNX Runtime on memory of ours, on the CPU, against the plain engine: padding, holes, memory, captures."""

import ctypes
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from device_cases import Pair, prompt
from device_engines import PATH, built
from join_cases import check_join
from specbeam.engines.base import ForwardInputs, causal
from specbeam.engines.onnxruntime.bound import OrtMemory
from specbeam.engines.onnxruntime.buckets import UNIT, bucket, padded_tokens
from specbeam.engines.onnxruntime.gathered import SMALLEST


@given(count=st.integers(0, 5000), past=st.integers(0, 5000))
def test_buckets(count: int, past: int) -> None:
    size = bucket(count)
    assert size >= count
    assert size % UNIT == 0
    assert bucket(size) == size <= bucket(count + 1)
    assert size <= max(1.25 * count, count + UNIT - 1, UNIT)
    tokens = padded_tokens(past, count)
    assert count <= tokens < size + UNIT
    assert (past + tokens) % UNIT == 0


def test_buckets_are_few() -> None:
    assert [bucket(count) for count in (1, 8, 9, 40, 65, 81, 160, 161, 400, 1000)] == [
        8, 8, 16, 40, 80, 96, 160, 192, 448, 1024,
    ]  # fmt: skip
    assert len({bucket(count) for count in range(1, 1025)}) == 24


class Search:
    """Random calls in a row on both kinds of engine: what was a slot for one is another slot for the other."""

    def __init__(self, pair: Pair, batch: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.engines = [pair.plain["target"], pair.device["target"]]
        self.caches = [engine.new_cache(batch) for engine in self.engines]
        self.slots = [np.empty((batch, 0), np.int64) for _ in self.engines]  # of every real token, by engine
        self.vocabulary = pair.bundle.facts("target").vocabulary
        self.prompt = 0

    def call(self, new: int, rows: int) -> list[np.ndarray]:
        """A prompt first, then nodes that see it and some of the earlier nodes."""
        batch, before = self.slots[0].shape
        ids, at = self.rng.integers(0, self.vocabulary, (batch, new)), self.rng.integers(0, new, (batch, rows))
        positions = np.broadcast_to(np.arange(before, before + new), (batch, new)).copy()
        seen = self.rng.integers(-1, before + 1, (batch, new, PATH - 1)) if before else None
        results = []
        for i, (engine, cache) in enumerate(zip(self.engines, self.caches, strict=True)):
            mine = np.broadcast_to(np.arange(cache.length, cache.length + new), (batch, new))
            self.slots[i] = np.concatenate([self.slots[i], mine], axis=1)
            below, visible = causal(cache.length, new, batch)
            if seen is not None:
                below = np.full((batch, new), self.prompt)
                earlier = np.where(seen < self.prompt, -1, np.take_along_axis(
                    self.slots[i], np.clip(seen, 0, None).reshape(batch, -1), axis=1
                ).reshape(seen.shape))  # fmt: skip
                earlier[seen == before] = -1
                visible = np.concatenate([earlier, mine[:, :, None]], axis=2)
            results.append(engine.forward(ForwardInputs(ids, positions, below, visible, at), cache).copy())
        self.prompt = self.prompt or new
        return results

    def keep(self, rows: np.ndarray, kept: np.ndarray | None) -> None:
        """Keep rows and, by number, real tokens."""
        for i, cache in enumerate(self.caches):
            if kept is None:
                cache.keep(rows)
                self.slots[i] = self.slots[i][rows]
            else:
                cache.keep(rows, self.slots[i][rows][:, kept])
                self.slots[i] = np.broadcast_to(np.arange(len(kept)), (len(rows), len(kept))).copy()


@given(seed=st.integers(0, 10**6), batch=st.integers(1, 3), calls=st.lists(st.integers(1, 20), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_calls_equal_the_plain_engine(pair: Pair, seed: int, batch: int, calls: list[int]) -> None:
    search = Search(pair, batch, seed)
    for number, new in enumerate(calls):
        plain, device = search.call(new, rows=1 + seed % new)
        assert plain.shape == device.shape
        np.testing.assert_allclose(device, plain, atol=2e-5)
        if number == 1:
            rows = search.rng.integers(0, batch, search.rng.integers(1, 4))
            prompt, nodes = np.arange(search.prompt), np.arange(search.prompt, search.slots[0].shape[1])
            kept = np.concatenate([prompt, nodes[search.rng.random(len(nodes)) < 0.5]])
            search.keep(rows, None if seed % 2 else kept)


def test_a_call_appends_holes_up_to_a_size_that_comes_again(pair: Pair) -> None:
    engine = pair.device["target"]
    cache = engine.new_cache(2)
    assert (cache.batch, cache.length) == (2, 0)
    got = engine.forward(prompt(engine, 2, 5), cache)
    assert got.shape == (2, 3, engine.columns)
    assert cache.length == 8
    cache.keep(np.array([1]), np.arange(5)[None])
    assert (cache.batch, cache.length) == (1, 5)
    engine.forward(prompt(engine, 1, 3, past=5), cache)
    assert cache.length == 16  # 8 tokens, and 3 that bring the cache to a multiple of 8


def test_memory_takes_turns_and_comes_again(pair: Pair, tmp_path: Path) -> None:
    """Two pieces carry any number of searches, one after the other; addresses are the same in each."""
    engine = built(pair.bundle, "draft", tmp_path)
    addresses = []
    for _ in range(3):
        cache, seen = engine.new_cache(2), []
        for call in range(4):
            engine.forward(prompt(engine, 2, 4, past=cache.length, seed=call), cache)
            assert cache.memory is not None
            seen.append(cache.memory.address)
        addresses.append(seen)
        del cache
    assert addresses[0] == addresses[1] == addresses[2]
    assert len(set(addresses[0])) == engine.caches._pool._made == 2
    assert len(engine._model._bindings) == 4


def test_copies_share_what_no_call_writes_into(pair: Pair) -> None:
    engine = pair.device["target"]
    one = engine.new_cache(1)
    engine.forward(prompt(engine, 1, 6), one)
    two = one.copy()
    assert one.memory is two.memory
    expected = [engine.forward(prompt(engine, 1, 4, past=6, seed=seed), one.copy()).copy() for seed in (1, 2)]
    for seed, cache in ((1, one), (2, two)):
        np.testing.assert_array_equal(
            engine.forward(prompt(engine, 1, 4, past=6, seed=seed), cache), expected[seed - 1]
        )
    assert one.memory is not two.memory


def test_keeping_everything_copies_nothing_and_nothing_is_kept_of_an_empty_cache(pair: Pair) -> None:
    engine = pair.device["target"]
    cache = engine.new_cache(2)
    cache.keep(np.array([0, 1, 1]))
    assert (cache.batch, cache.length, cache.memory) == (3, 0, None)
    engine.forward(prompt(engine, 3, 4), cache)
    before = cache.memory
    cache.keep(np.arange(3))
    assert cache.memory is before
    cache.keep(np.array([2]), np.empty((1, 0), np.int64))
    assert (cache.batch, cache.length, cache.memory) == (1, 0, None)


def test_sizes_are_powers_of_two_and_freed_memory_is_gone(pair: Pair) -> None:
    engine = pair.device["target"]
    assert [engine.caches.size(1, length) for length in (0, 8)] == [SMALLEST] * 2
    assert engine.caches.size(3, 1000).bit_count() == 1
    memory = OrtMemory("cpu")
    address = memory.allocate(1000)
    ctypes.memset(address, 0, 1000)
    memory.free(address)
    assert not memory._live


def test_caches_join(pair: Pair) -> None:
    check_join(pair.plain["target"])
    check_join(pair.device["target"])
