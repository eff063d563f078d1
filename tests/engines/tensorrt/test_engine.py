"""The TensorRT engine on a stand-in for TensorRT and CUDA: everything but the kernels is the real thing."""

import gc
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as changed

from fake_cuda import FakeCuda
from join_cases import check_join
from scripted_search import random_catalog, search
from specbeam.catalog.errors import EngineError
from specbeam.catalog.extras import install
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.base import Engine, Float32, ForwardInputs, causal
from specbeam.engines.bundle.facts import TensorRTFacts
from specbeam.engines.cache import KVCache
from specbeam.runtime.types import DraftShape
from trt_cases import FACTS, LENGTH, LIMITS, REBUILD, ROWS, VOCABULARY, Graphs, build

pytest.importorskip("polygraphy")


@pytest.fixture(scope="module")
def plans(
    graphs: Graphs, stand_in: FakeCuda, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, TensorRTFacts]]:
    folder = tmp_path_factory.mktemp("plans")
    stand_in.reset()
    return {
        name: (folder / name, build(graph, folder / name))
        for name, graph in (("fp32", graphs.fp32), ("fp16", graphs.fp16))
    }


Plans = dict[str, tuple[Path, TensorRTFacts]]


def load(plans: Plans, precision: str = "fp32", **changes: object):
    from specbeam.engines.tensorrt.load import load_trt_engine

    plan, facts = plans[precision]
    return load_trt_engine(
        plan, FACTS, changed(facts, **changes), columns=len(VOCABULARY), cache_precision=precision, rebuild=REBUILD
    )


def tree_call(rng: np.random.Generator, batch: int, past: int, new: int, *, rows: int = 3) -> ForwardInputs:
    """Random tokens that see some beginning and some slots anywhere before them, themselves included."""
    below = rng.integers(0, past + 1, (batch, new))
    own = np.broadcast_to(np.arange(past, past + new), (batch, new))
    other = rng.integers(-1, own + 1)
    return ForwardInputs(
        rng.integers(4, ROWS, (batch, new)), rng.integers(0, 40, (batch, new)), below, np.stack([own, other], 2),
        rng.integers(0, new, (batch, min(rows, new))),
    )  # fmt: skip


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 3e-2)])
def test_calls_agree_with_onnx_runtime_whatever_happens_to_the_cache(
    graphs: Graphs, plans: Plans, gpu: FakeCuda, precision: str, tolerance: float
) -> None:
    rng, engines = np.random.default_rng(3), (load(plans, precision), graphs.reference())

    def both(caches: tuple[KVCache, KVCache], inputs: ForwardInputs) -> None:
        one, two = (engine.forward(inputs, cache) for engine, cache in zip(engines, caches, strict=True))
        assert one.shape == two.shape
        np.testing.assert_allclose(one, two, atol=tolerance)
        assert caches[0].length == caches[1].length
        assert caches[0].batch == caches[1].batch

    for batch in (1, 3):
        caches = tuple(engine.new_cache(batch) for engine in engines)
        both(caches, tree_call(rng, batch, 0, 9))
        both(caches, tree_call(rng, batch, 9, 4))
        copies = tuple(cache.copy() for cache in caches)
        both(caches, tree_call(rng, batch, 13, 5))
        both(copies, tree_call(rng, batch, 13, 2))  # the other's call has not changed what they shared
        rows = rng.integers(0, batch, 4)
        for cache in caches:
            cache.keep(rows)
        both(caches, tree_call(rng, 4, 18, 6))
        both(copies, tree_call(rng, batch, 15, 1))
        slots = rng.permuted(np.tile(np.arange(24), (2, 1)), axis=1)[:, :7]
        for cache in caches:
            cache.keep(np.array([3, 0]), slots)
        both(caches, tree_call(rng, 2, 7, 3))


def test_empty_caches_and_calls_without_rows(graphs: Graphs, plans: Plans, gpu: FakeCuda) -> None:
    engine, reference = load(plans), graphs.reference()
    cache = engine.new_cache(1)
    cache.keep(np.zeros(3, np.int64))
    assert (cache.batch, cache.length) == (3, 0)
    inputs = ForwardInputs(
        np.full((3, 2), 5), np.tile(np.arange(2), (3, 1)), *causal(0, 2, 3), np.zeros((3, 0), np.int64)
    )
    assert engine.forward(inputs, cache).shape == (3, 0, len(VOCABULARY))
    other = reference.new_cache(3)
    reference.forward(replace(inputs, logit_rows=np.zeros((3, 1), np.int64)), other)  # takes at least one
    later = replace(tree_call(np.random.default_rng(0), 3, 2, 1), visible_slots=np.full((3, 1, 1), 2))
    np.testing.assert_allclose(engine.forward(later, cache), reference.forward(later, other), atol=1e-4)


def test_memory_is_used_again_and_given_back(plans: Plans, gpu: FakeCuda) -> None:
    gc.collect()
    before, rng, engine, used = gpu.used, np.random.default_rng(0), load(plans), []
    for _ in range(4):
        cache = engine.new_cache(4)
        for past, new in ((0, 12), (12, 16), (28, 16)):
            engine.forward(tree_call(rng, 4, past, new), cache)
        used.append(gpu.used - before)
    assert used[1:] == used[:1] * 3
    # Two buffers with 12 + 3 x 16 slots for four requests: two layers' keys and values of two heads with 8 float32.
    assert used[0] == pytest.approx(2 * 4 * 60 * 2 * 2 * 2 * 8 * 4, rel=0.1)
    del cache, engine
    gc.collect()
    assert gpu.used == before


def test_rows_are_copied_on_the_gpu(plans: Plans, gpu: FakeCuda) -> None:
    engine = load(plans)
    cache = engine.new_cache(2)
    engine.forward(tree_call(np.random.default_rng(0), 2, 0, 5), cache)
    cache.keep(np.array([1, 1, 0]))
    assert gpu.rows_copied == 3 * 4  # a request's keys and values of two layers
    memory = cache.memory
    cache.keep(np.arange(3))
    assert cache.memory is memory
    assert gpu.rows_copied == 3 * 4


def test_the_profile_for_the_fewest_tokens_runs_a_call(plans: Plans, gpu: FakeCuda) -> None:
    engine, rng = load(plans), np.random.default_rng(0)
    cache = engine.new_cache(1)
    for past, new in ((0, 12), (12, 16), (28, 1), (29, 2)):
        engine.forward(tree_call(rng, 1, past, new), cache)
    prefill, verify = engine._plan.contexts
    assert (prefill._calls, verify._calls) == (1, 3)


@pytest.mark.parametrize(
    ("batch", "past", "new", "option"),
    [(5, 0, 4, "--max-batch"), (1, 0, 29, "--max-nodes"), (1, 20, 17, "--max-nodes"), (1, 56, 5, "--max-prompt")],
)
def test_calls_beyond_the_limits_say_which_to_raise(
    plans: Plans, gpu: FakeCuda, batch: int, past: int, new: int, option: str
) -> None:
    engine, rng = load(plans), np.random.default_rng(0)
    cache = engine.new_cache(batch)
    for before in range(0, past, 4):
        engine.forward(tree_call(rng, batch, before, 4), cache)
    with pytest.raises(EngineError, match=rf"{option}.*{REBUILD}"):
        engine.forward(tree_call(rng, batch, past, new), cache)
    wide = replace(tree_call(rng, 1, 0, 1), visible_slots=np.zeros((1, 1, LENGTH + 1), np.int64))
    with pytest.raises(EngineError, match=rf"names {LENGTH + 1} slots.*{REBUILD}"):
        engine.forward(wide, engine.new_cache(1))


def test_a_call_that_fails_leaves_the_cache_as_it_was(graphs: Graphs, plans: Plans, gpu: FakeCuda) -> None:
    import fake_tensorrt

    engine, reference, rng = load(plans), graphs.reference(), np.random.default_rng(0)
    cache, other = engine.new_cache(2), reference.new_cache(2)
    first, second = tree_call(rng, 2, 0, 6), tree_call(rng, 2, 6, 3)
    engine.forward(first, cache)
    fake_tensorrt.Fault.execute = True
    with pytest.raises(EngineError, match=f"refused the call.*{REBUILD}"):
        engine.forward(second, cache)
    fake_tensorrt.Fault.execute = False
    reference.forward(first, other)
    np.testing.assert_allclose(engine.forward(second, cache), reference.forward(second, other), atol=1e-4)


def test_a_full_gpu_says_so_once_nothing_can_be_given_up(plans: Plans, gpu: FakeCuda) -> None:
    engine, rng = load(plans), np.random.default_rng(0)
    gpu.reset(memory=400_000)
    caches = [engine.new_cache(1)]
    engine.forward(tree_call(rng, 1, 0, 4), caches[0])
    engine.forward(tree_call(rng, 1, 4, 4), caches[0])  # the first buffer is free now, and too small for a larger batch
    engine.forward(tree_call(rng, 4, 0, 4), engine.new_cache(4))

    def fill() -> None:
        for _ in range(20):
            caches.append(engine.new_cache(1))
            engine.forward(tree_call(rng, 1, 0, 4), caches[-1])

    with pytest.raises(EngineError, match="lower the batch size"):
        fill()


def test_threads_share_an_engine(graphs: Graphs, plans: Plans, gpu: FakeCuda) -> None:
    engine, reference = load(plans), graphs.reference()

    def talk(engine: Engine, seed: int) -> list[Float32]:
        rng, cache = np.random.default_rng(seed), engine.new_cache(2)
        return [engine.forward(tree_call(rng, 2, past, 4), cache) for past in range(0, 24, 4)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda seed: talk(engine, seed), range(8)))
    for seed, result in enumerate(results):
        for one, two in zip(result, talk(reference, seed), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-4)


def test_the_search_finds_what_it_finds_with_onnx_runtime(graphs: Graphs, plans: Plans, gpu: FakeCuda) -> None:
    rng = np.random.default_rng(5)
    trie = ItemTrie.build(random_catalog(rng, 40, LENGTH, 6))
    prompts = [np.concatenate([np.arange(4, 10), rng.integers(4, ROWS, size)]) for size in (3, 6, 1)]
    lists = []
    fast = load(plans, "fp16")
    for target, draft in ((load(plans), fast), (graphs.reference(), graphs.reference())):
        ranked, _, _ = search(trie, target, prompts, 6, draft=draft, shape=DraftShape(4, 2))
        lists.append(ranked)
    assert all(context._calls for context in fast._plan.contexts)
    for one, two in zip(*lists, strict=True):
        assert [node for node, _ in one] == [node for node, _ in two]
        np.testing.assert_allclose([s for _, s in one], [s for _, s in two], atol=1e-3)


def test_a_plan_is_opened_only_where_it_runs(plans: Plans, gpu: FakeCuda) -> None:
    import fake_tensorrt

    assert fake_tensorrt.__version__ == "10.16.1.11"
    for version in ("10.16.2.1", "11.4.0.106", "10.15.1.29"):
        with pytest.raises(EngineError, match=rf"built by TensorRT {version}.*here is 10.16.1.11. Run: {REBUILD}"):
            load(plans, version=version)
    load(plans, version="10.16.1.99")
    load(plans, version="10.13.0.35", version_compatible=True)
    with pytest.raises(EngineError, match=r"needs 11.4.0.106 or later; here is 10.16.1.11"):
        load(plans, version="11.4.0.106", version_compatible=True)
    with pytest.raises(EngineError, match=f"compute capability 8.6; this one has 9.0. Run: {REBUILD}"):
        load(plans, compute_capability="8.6")
    load(plans, compute_capability="8.6", hardware_compatible=True)
    gpu.reset(capability=(7, 0))
    with pytest.raises(EngineError, match=r"8.0 or more; this one has 7.0"):
        load(plans, compute_capability="8.6", hardware_compatible=True)
    gpu.reset(gpus=0)
    with pytest.raises(EngineError, match="No NVIDIA GPU"):
        load(plans)


def test_plans_that_cannot_be_read(plans: Plans, gpu: FakeCuda) -> None:
    import fake_tensorrt

    with pytest.raises(EngineError, match=f"has 2 profiles, expected 1. Build it again: {REBUILD}"):
        load(plans, profiles=("verify",))
    fake_tensorrt.Fault.load = "magic tag does not match"
    with pytest.raises(EngineError, match=f"magic tag does not match. Build it again: {REBUILD}"):
        load(plans)


def test_the_lean_runtime_runs_version_compatible_plans(
    plans: Plans, gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    import fake_tensorrt

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_lean", fake_tensorrt)
    load(plans, version_compatible=True)
    with pytest.raises(EngineError, match=re.escape(install("tensorrt"))):
        load(plans)
    assert LIMITS.capacity(FACTS, LENGTH) == 60


def test_printing_is_left_to_us(plans: Plans, gpu: FakeCuda, capfd: pytest.CaptureFixture[str]) -> None:
    gpu.reset(memory=0)
    engine = load(plans)
    with pytest.raises(EngineError, match="MiB left"):
        engine.forward(tree_call(np.random.default_rng(0), 1, 0, 4), engine.new_cache(1))
    out, err = capfd.readouterr()
    assert out + err == ""


def test_caches_join(plans: Plans, gpu: FakeCuda) -> None:
    check_join(load(plans))
