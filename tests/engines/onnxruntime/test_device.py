"""ONNX Runtime on memory of ours, on the CPU, against the plain engine: padding, holes, memory, captures."""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_engines import PATH, built
from reference import as_ranked
from specbeam.catalog.errors import EngineError
from specbeam.engines.base import Engine, ForwardInputs, causal
from specbeam.engines.bundle.facts import Role
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.memory import Lease, Pool
from specbeam.engines.onnxruntime.bound import FLOAT32, BoundSession, OrtMemory, Tensors
from specbeam.engines.onnxruntime.buckets import UNIT, bucket, padded_tokens
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.engines.onnxruntime.device import GATHER, SMALLEST, DeviceEngine
from specbeam.graphs.gather import write_gather
from specbeam.runtime import DraftShape, Recommender, Verification
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.search.prefix import SharedPrefix
from tiny_bundle import Tiny


@pytest.fixture(scope="module", autouse=True)
def memory_is_full_of_nan() -> Iterator[None]:
    """Whatever is read before it is written poisons all that it touches."""
    with pytest.MonkeyPatch.context() as patch:
        take = Pool.take

        def poisoned(self: Pool, size: int) -> Lease:
            lease = take(self, size)
            ctypes.memset(lease.address, 0xFF, size)
            return lease

        patch.setattr(Pool, "take", poisoned)
        yield


@dataclass(frozen=True)
class Pair:
    """The tiny bundle's models by both kinds of engine."""

    bundle: Bundle
    device: dict[Role, DeviceEngine]
    plain: dict[Role, Engine]


@pytest.fixture(scope="module")
def pair(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    bundle, folder = Bundle.open(tiny.bundle), tmp_path_factory.mktemp("device")
    device: dict[Role, DeviceEngine] = {}
    plain: dict[Role, Engine] = {}
    roles: tuple[Role, ...] = ("target", "draft")
    for role in roles:
        device[role] = built(bundle, role, folder / role)
        plain[role] = load_ort_engine(
            bundle.graph(role), bundle.facts(role), device="cpu", precision="fp32", threads=1
        )  # fmt: skip
    return Pair(bundle, device, plain)


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


def prompt(engine: Engine, batch: int, new: int, past: int = 0, seed: int = 0) -> ForwardInputs:
    ids = np.random.default_rng(seed).integers(0, 20, (batch, new))
    positions = np.broadcast_to(np.arange(past, past + new), (batch, new)).copy()
    rows = np.broadcast_to(np.arange(min(new, 3)), (batch, min(new, 3))).copy()
    return ForwardInputs(ids, positions, *causal(past, new, batch), rows)


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
    assert len(set(addresses[0])) == engine._pool._made == 2
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
    assert [engine._size(1, length) for length in (0, 8)] == [SMALLEST] * 2
    assert engine._size(3, 1000).bit_count() == 1
    memory = OrtMemory("cpu")
    address = memory.allocate(1000)
    ctypes.memset(address, 0, 1000)
    memory.free(address)
    assert not memory._live


def test_prefix_sharing_cuts_the_padding(pair: Pair) -> None:
    tokens = np.arange(19) % 20
    prefixes = [SharedPrefix(engine, tokens) for engine in (pair.plain["target"], pair.device["target"])]
    results = []
    for prefix in prefixes:
        cache = prefix.new_cache(3)
        assert (cache.batch, cache.length) == (3, 19)
        results.append(prefix.engine.forward(prompt(prefix.engine, 3, 5, past=19), cache))
    np.testing.assert_allclose(results[1], results[0], atol=2e-5)


def recommender(pair: Pair, engines: dict[Role, Engine], verification: Verification, batch: int) -> Recommender:
    trie = pair.bundle.trie()
    loaded = Loaded(pair.bundle.catalog(), trie, pair.bundle.prompts(trie), engines["target"], engines["draft"])
    planning = FixedPlanning(DraftShape(6, 2))
    return Recommender(loaded, planning=planning, verification=verification, batching=batch)


@pytest.mark.parametrize("verification", [Verification(), Verification("sampled", seed=3), Verification("relaxed")])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("k", [1, 5])
def test_the_lists_are_those_of_the_plain_engine(pair: Pair, verification: Verification, batch: int, k: int) -> None:
    histories = [[str(i) for i in range(start, start + 1 + start % 6)] for start in range(0, 30, 4)]
    lists = []
    for engines in (pair.plain, pair.device):
        results = recommender(pair, dict(engines), verification, batch).recommend(histories, k)
        lists.append([(as_ranked(result), result.stats) for result in results])
    for (plain, plain_stats), (device, stats) in zip(*lists, strict=True):
        assert [item for item, _ in device] == [item for item, _ in plain]
        np.testing.assert_allclose([score for _, score in device], [score for _, score in plain], atol=1e-4)
        assert stats == plain_stats


def test_half_precision(pair: Pair, tmp_path: Path) -> None:
    half, whole = built(pair.bundle, "target", tmp_path, "fp16"), pair.plain["target"]
    caches = half.new_cache(2), whole.new_cache(2)
    for past, new in ((0, 7), (8, 5)):
        a = half.forward(replace(prompt(half, 2, new), visible_below=np.full((2, new), 1)), caches[0])
        b = whole.forward(replace(prompt(whole, 2, new), visible_below=np.full((2, new), 1)), caches[1])
        assert np.abs(a - b).max() < 0.05
        assert caches[0].length == past + 8
    caches[0].keep(np.array([1, 1]), np.array([[0, 9], [0, 10]]))
    assert (caches[0].batch, caches[0].length) == (2, 2)


def test_gather_graph_in_every_precision(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint16).reshape(6, 2)
    for precision, element in (("fp32", 1), ("fp16", 10), ("bf16", 16)):
        write_gather(tmp_path / precision, 1, precision)
        session = ort.InferenceSession(str(tmp_path / precision), providers=["CPUExecutionProvider"])
        data = values.astype(np.uint32) if precision == "fp32" else values
        out = np.zeros((2, 2), data.dtype)
        index = np.array([4, 0])
        past = Tensors(
            ("past_key_values.0.key", "past_key_values.0.value"), element, data.shape, data.ctypes.data
        )  # fmt: skip
        present = Tensors(("present.0.key",), element, (2, 2), out.ctypes.data)
        spare = Tensors(("present.0.value",), element, (2, 2), np.zeros_like(out).ctypes.data)
        BoundSession(session, "cpu").run(
            (Tensors(("index",), 7, (2,), index.ctypes.data), past), (present, spare)
        )  # fmt: skip
        assert out.tolist() == values[[4, 0]].tolist()
    with pytest.raises(EngineError, match="got 'int8'"):
        write_gather(tmp_path / "no", 1, "int8")


class RecordingSession:
    """Remembers under which graph numbers it ran; refuses those of `refused`."""

    def __init__(self, refused: tuple[str, ...] = ()) -> None:
        self.numbers: list[str] = []
        self.refused = refused

    def io_binding(self) -> "RecordingSession":
        return self

    def bind_input(self, *_: object) -> None:
        pass

    bind_output = bind_input

    def run_with_iobinding(self, binding: object, options: ort.RunOptions) -> None:
        self.numbers.append(options.get_run_config_entry("gpu_graph_id"))
        if self.numbers[-1] in self.refused:
            raise RuntimeError("capture failed")


def at(address: int) -> tuple[Tensors, ...]:
    return (Tensors(("x",), FLOAT32, (1,), address),)


def test_what_comes_again_is_captured() -> None:
    session = RecordingSession()
    bound = BoundSession(session, "cpu", cuda_graphs=True)
    for address in (1, 2, 1, 1, 2, 3):
        bound.run(at(address), at(7))
    assert session.numbers == ["-1", "-1", "1", "1", "2", "-1"]
    thread = Thread(target=lambda: bound.run(at(1), at(7)))  # a captured graph is its thread's
    thread.start()
    thread.join()
    bound.run(at(1), at(8))  # written elsewhere: another graph
    assert session.numbers[6:] == ["3", "-1"]


def test_captures_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specbeam.engines.onnxruntime.bound.GRAPHS", 2)
    monkeypatch.setattr("specbeam.engines.onnxruntime.bound.BINDINGS", 3)
    session = RecordingSession()
    bound = BoundSession(session, "cpu", cuda_graphs=True)
    for _ in range(2):
        for address in (1, 2, 3):
            bound.run(at(address), at(7))
    assert session.numbers == ["-1", "-1", "-1", "1", "2", "-1"]
    bound.run(at(4), at(7))  # the binding used longest ago is forgotten, not its captured graph
    bound.run(at(1), at(7))
    assert session.numbers[6:] == ["-1", "1"]


def test_what_cannot_be_captured_runs_without() -> None:
    session = RecordingSession(refused=("1",))
    bound = BoundSession(session, "cpu", cuda_graphs=True)
    for _ in range(3):
        bound.run(at(1), at(7))
    assert session.numbers == ["-1", "1", "-1", "-1"]


def test_threads_share_an_engine(pair: Pair) -> None:
    engine = pair.device["target"]
    expected = [engine.forward(prompt(engine, 2, 6, seed=seed), engine.new_cache(2)) for seed in range(4)]
    faults: list[int] = []

    def work(seed: int) -> None:
        for _ in range(20):
            got = engine.forward(prompt(engine, 2, 6, seed=seed), engine.new_cache(2))
            if not np.array_equal(got, expected[seed]):
                faults.append(seed)

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_refusals(pair: Pair, tmp_path: Path) -> None:
    engine = pair.device["target"]
    inputs = prompt(engine, 1, 2)
    with pytest.raises(EngineError, match="names 5 slots, the engine was built for at most 4"):
        engine.forward(replace(inputs, visible_slots=np.zeros((1, 2, 5), np.int64)), engine.new_cache(1))
    with pytest.raises(EngineError, match=r"got OrtCache"):
        engine.forward(inputs, pair.plain["target"].new_cache(1))
    dense = tmp_path / "model.onnx"
    dense.write_bytes(pair.bundle.graph("target").read_bytes())
    facts = pair.bundle.facts("target")
    write_gather(tmp_path / GATHER, facts.layers, "fp32")
    with pytest.raises(EngineError, match="no input visible_slots"):
        load_ort_engine(dense, facts, device="cpu", precision="fp32", threads=1)
    with pytest.raises(EngineError, match="failed on a call of 1 requests with 2 tokens"):
        engine.forward(replace(inputs, logit_rows=np.full((1, 1), 99)), engine.new_cache(1))
