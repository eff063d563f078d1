"""ONNX Runtime on memory of ours: the same lists in every precision, captures, threads and refusals."""

from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks.shared import as_ranked
from device_cases import Pair, at, prompt
from device_engines import built
from specbeam.catalog.errors import EngineError
from specbeam.engines.base import Engine
from specbeam.engines.bundle.facts import Role
from specbeam.engines.onnxruntime.bound import BoundSession, Tensors
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.engines.onnxruntime.device import GATHER
from specbeam.graphs.gather import write_gather
from specbeam.runtime import DraftShape, Recommender, Verification
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.search.prefix import SharedPrefix


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
