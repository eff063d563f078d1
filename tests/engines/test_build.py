"""build-engine: what it writes, what it refuses, and that a failure leaves no engine behind."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from specbeam.catalog.errors import EngineError, SpecBeamError
from specbeam.catalog.extras import install
from specbeam.engines import build
from specbeam.engines.base import Engine, ForwardInputs, causal
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.cache import KVCache
from specbeam.engines.compare import Refusal, answers, cases, difference
from specbeam.engines.latency import BATCHES, PASSES
from specbeam.engines.onnxruntime import backend as ort_backend
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.engines.registry import find_backend
from specbeam.engines.tensorrt.profiles import Limits
from specbeam.runtime import Recommender
from tiny_bundle import ENGINE, Tiny, edit_manifest


@pytest.fixture
def bare(bundle: Path) -> Path:
    """A bundle without engines."""
    shutil.rmtree(bundle / "engines")
    return bundle


def left(bundle: Path) -> list[str]:
    """The folders in engines/, temporary ones included."""
    return sorted(path.name for path in (bundle / "engines").glob("*") if path.is_dir())


def test_what_is_built(bare: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    folder = build_engine(bare, threads=1, progress=lambda *step: seen.append(step))
    assert folder == bare / "engines" / ENGINE
    assert left(bare) == [ENGINE]
    bundle = Bundle.open(bare)
    facts = bundle.engine_facts(ENGINE)
    assert (facts.backend, facts.device, facts.precision, facts.threads) == ("onnxruntime", "cpu", "fp32", 1)
    assert facts.versions == {"onnxruntime": onnxruntime.__version__}
    assert set(facts.files) == {
        f"{role}/{name}.onnx" for role in ("target", "draft") for name in ("model", "constrained")
    }
    grid = {(batch, 0, new) for batch in BATCHES for new in (1, 8, 20)}  # what a context of 32 holds
    for role in ("target", "draft"):
        built = facts.roles[role]
        assert {(point.batch, point.past, point.new) for point in built.latency} == grid
        assert all(0 < point.milliseconds < 10_000 for point in built.latency)
        assert 0 <= built.max_difference < 1e-4
        assert built.source_sha256 == bundle.graph_sha256("target" if role == "target" else "draft")
    assert facts.roles["target"].source_sha256 != facts.roles["draft"].source_sha256
    assert [step for step in seen if step[0] == "timing draft"] == [
        ("timing draft", i, 9 * PASSES) for i in range(9 * PASSES + 1)
    ]
    assert [step[0] for step in seen if "optimising" in step[0]] == ["optimising target", "optimising draft"]
    assert len(Recommender.open(bare).recommend([["3"]], 4)[0].items) == 4


def test_the_optimised_graph_is_stored_and_computes_the_same(tiny: Tiny) -> None:
    bundle = Bundle.open(tiny.bundle)
    source, graph = bundle.graph("target"), bundle.engine_folder(ENGINE, "target") / "model.onnx"
    domains = {node.domain for node in onnx.load(graph).graph.node}
    assert "com.microsoft" in domains - {node.domain for node in onnx.load(source).graph.node}  # fused by ONNX Runtime
    inputs = ForwardInputs(np.arange(9)[None] + 10, np.arange(9)[None], *causal(0, 9), np.arange(9)[None])
    rows = []
    for path in (source, graph):
        engine = load_ort_engine(path, bundle.facts("target"), device="cpu", precision="fp32", threads=1)
        rows.append(engine.forward(inputs, engine.new_cache(1)))
    assert rows[0].std() > 0.1
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-4)


def test_an_existing_engine_is_replaced_only_when_told(bundle: Path) -> None:
    mark = bundle / "engines" / ENGINE / "mark"
    mark.touch()
    with pytest.raises(SpecBeamError, match=rf"{ENGINE} exists already\. .*--overwrite"):
        build_engine(bundle, threads=1)
    assert mark.exists()
    build_engine(bundle, threads=1, overwrite=True)
    assert left(bundle) == [ENGINE]
    assert not mark.exists()


def test_a_bundle_without_a_draft(bare: Path) -> None:
    edit_manifest(bare, draft=None)
    build_engine(bare, threads=1)
    assert set(Bundle.open(bare).engine_facts(ENGINE).roles) == {"target"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, r"onnxruntime backend on cpu runs fp32, fp16, int8; got bf16"),
        ({"precision": "int8"}, r"int8 needs histories to calibrate on .*--calibration HISTORIES"),
        ({"draft_precision": "int8"}, r"int8 needs histories"),
    ],
)
def test_what_cannot_be_built_is_refused(bare: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecBeamError, match=message):
        build_engine(bare, **options)
    assert left(bare) == []


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_a_device_that_is_not_there(bare: Path) -> None:
    with pytest.raises(EngineError, match=f"no CUDAExecutionProvider; it has .*{re.escape(install('gpu'))}"):
        build_engine(bare, backend=find_backend("onnxruntime", "cuda"))
    assert left(bare) == []


def test_bfloat16_is_refused(bare: Path) -> None:
    edit_manifest(bare, precision="bf16")
    with pytest.raises(EngineError, match=r"onnxruntime backend on cpu runs fp32, fp16, int8; got bf16"):
        build_engine(bare)


def test_a_graph_that_onnx_runtime_cannot_load(bare: Path) -> None:
    (bare / "target/model.onnx").write_bytes(b"no graph")
    edit_manifest(bare, files=build.file_facts(bare))
    version = onnxruntime.__version__
    with pytest.raises(EngineError, match=rf"ONNX Runtime {version} cannot load .*target/model\.onnx on cpu"):
        build_engine(bare)
    assert left(bare) == []


@pytest.mark.parametrize("difference", [0.5, float("inf")])
def test_a_graph_that_differs_is_refused(bare: Path, monkeypatch: pytest.MonkeyPatch, difference: float) -> None:
    monkeypatch.setattr(build, "difference", lambda *_: difference)
    with pytest.raises(EngineError, match=rf"target, built in fp32, differs .* by {difference:g} .*allowed is 0\.001"):
        build_engine(bare)
    assert left(bare) == []


def test_the_difference_is_measured(tiny: Tiny, tmp_path: Path) -> None:
    """Against a graph with other weights it is large."""
    bundle = Bundle.open(tiny.bundle)
    graph = onnx.load(bundle.graph("target"))
    for weight in graph.graph.initializer:
        array = onnx.numpy_helper.to_array(weight)
        if array.ndim == 2 and array.dtype == np.float32:
            weight.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(1.1), weight.name))
    onnx.save(graph, tmp_path / "other.onnx")
    facts = bundle.facts("target")
    own = load_ort_engine(bundle.graph("target"), facts, device="cpu", precision="fp32", threads=1)
    other = load_ort_engine(tmp_path / "other.onnx", facts, device="cpu", precision="fp32", threads=1)
    refusal, samples = Refusal(bundle, "target", "fp32"), bundle.samples()
    assert difference(answers(own, cases(facts, samples), refusal), own, refusal) < 1e-4
    assert difference(answers(other, cases(facts, samples), refusal), own, refusal) > 0.01


def test_the_check_stays_within_what_an_engine_takes(tiny: Tiny) -> None:
    """An engine that was built for small calls is compared on small ones."""
    bundle = Bundle.open(tiny.bundle)
    facts, seen = bundle.facts("target"), set()
    engine = load_ort_engine(bundle.graph("target"), facts, device="cpu", precision="fp32", threads=1)

    class Watched(Engine):
        def new_cache(self, batch: int) -> KVCache:
            return engine.new_cache(batch)

        def forward(self, inputs: ForwardInputs, cache: KVCache) -> Any:
            seen.add((*inputs.input_ids.shape, inputs.logit_rows.shape[1]))
            return engine.forward(inputs, cache)

    limits = Limits(max_batch=1, max_prompt=12, max_nodes=5, path=3)
    refusal, watched = Refusal(bundle, "target", "fp32"), Watched(columns=engine.columns)
    said = answers(engine, cases(facts, bundle.samples(), limits), refusal)
    assert difference(said, watched, refusal) == 0
    assert {(1, 12, 5), (1, 5, 5)} <= seen
    assert all(batch == 1 and new <= 12 and rows <= 5 for batch, new, rows in seen)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("step", ["exported_engine", "measure_latency"])
def test_a_failure_leaves_no_engine_and_an_older_one_alone(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], step: str
) -> None:
    before = (bundle / "engines" / ENGINE / "engine.json").read_bytes()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(build, step, fail)
    with pytest.raises(error):
        build_engine(bundle, threads=1, overwrite=True)
    assert left(bundle) == [ENGINE]
    assert (bundle / "engines" / ENGINE / "engine.json").read_bytes() == before


def test_large_weights_lie_beside_the_graph(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_backend, "SHARED_BYTES", 0)
    build_engine(bare, threads=1)
    bundle = Bundle.open(bare)
    assert {"target/model.onnx", "target/model.onnx.data"} <= set(bundle.engine_facts(ENGINE).files)
    assert len(Recommender.open(bare).recommend([["3"]], 4)[0].items) == 4
    data = bare / "engines" / ENGINE / "target/model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    with pytest.raises(SpecBeamError, match=r"model\.onnx\.data is damaged"):
        Recommender.open(bare)
