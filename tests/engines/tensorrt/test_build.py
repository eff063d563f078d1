"""Building plans on a stand-in for TensorRT, with the real Polygraphy for CUDA."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fake_cuda import FakeCuda
from specbeam.catalog.errors import EngineError
from specbeam.catalog.extras import install
from specbeam.engines.tensorrt.build import Kind, TrtOptions, build_plan, graph_inputs
from specbeam.engines.tensorrt.flavour import TENSORRT
from specbeam.engines.tensorrt.load import load_trt_engine
from specbeam.engines.tensorrt.profiles import profiles_for
from trt_cases import FACTS, LENGTH, LIMITS, Graphs, build, facts_of

pytest.importorskip("polygraphy")
FP32 = Kind(TENSORRT, "fp32", "fp32")


def test_a_plan_and_its_facts(graphs: Graphs, gpu: FakeCuda, tmp_path: Path) -> None:
    import fake_tensorrt

    facts = build(graphs.fp16, tmp_path / "plan")
    assert (facts.version, facts.compute_capability, facts.limits) == ("10.16.1.11", "9.0", LIMITS)
    assert facts.profiles == ("prefill+verify", "verify")
    content = fake_tensorrt.content(tmp_path / "plan")
    assert (content["flags"], content["pools"], content["hardware"]) == ([], {}, "NONE")
    first, later = content["profiles"]
    assert first["input_ids"] == [[1, 1], [2, 14], [4, 28]]
    assert later["past_key_values.1.value"] == [[1, 2, 1, 8], [2, 2, 12, 8], [4, 2, 59, 8]]
    assert list(first) == list(graph_inputs(graphs.fp16))


def test_options_reach_the_builder(graphs: Graphs, gpu: FakeCuda, tmp_path: Path) -> None:
    import fake_tensorrt

    cache = tmp_path / "timing"
    options = TrtOptions(workspace=1 << 28, timing_cache=str(cache), version_compatible=True, hardware_compatible=True)
    facts = build(graphs.fp16, tmp_path / "plan", options=options)
    assert facts.version_compatible
    assert facts.hardware_compatible
    content = fake_tensorrt.content(tmp_path / "plan")
    assert content["flags"] == ["VERSION_COMPATIBLE"]
    assert content["pools"] == {"WORKSPACE": 1 << 28}
    assert content["hardware"] == "AMPERE_PLUS"
    once = cache.read_bytes()
    assert once == b"timed;"
    build(graphs.fp16, tmp_path / "plan", options=options)
    assert cache.read_bytes().startswith(once)
    assert len(cache.read_bytes()) > len(once)


def test_a_file_that_is_no_timing_cache_is_named_and_stays(
    graphs: Graphs, gpu: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_tensorrt

    monkeypatch.setattr(fake_tensorrt.IBuilderConfig, "create_timing_cache", lambda config, serialized: None)
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(EngineError, match=r"notes is no timing cache of this TensorRT\. Give another --timing-cache"):
        build(graphs.fp16, tmp_path / "plan", options=TrtOptions(timing_cache=str(tmp_path / "notes")))
    assert (tmp_path / "notes").read_text() == "mine"


def test_progress_shows_the_outer_phases(graphs: Graphs, gpu: FakeCuda, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def tell(what: str, done: int, total: int) -> None:
        seen.append((what, done, total))

    profiles = profiles_for("target", FACTS, LIMITS, LENGTH)
    settings = {"limits": LIMITS, "identifier_length": LENGTH, "kind": FP32, "options": TrtOptions()}
    build_plan(graphs.fp32, tmp_path / "plan", FACTS, profiles, **settings, progress=tell)
    assert seen == [
        ("Building", 0, 2), ("Timing", 0, 3), ("Timing", 1, 3), ("Timing", 3, 3), ("Building", 2, 2),
    ]  # fmt: skip

    def stop(what: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(graphs.fp32, tmp_path / "stopped", FACTS, profiles, **settings, progress=stop)
    assert not (tmp_path / "stopped").exists()


def test_an_interrupt_in_the_logger_is_not_dropped(
    graphs: Graphs, gpu: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT's own code calls the logger, and goes on whatever that raises."""
    import fake_tensorrt

    def interrupted(message: str, failed: bool) -> None:
        raise KeyboardInterrupt

    build_it = fake_tensorrt.Builder.build_serialized_network

    def building(builder: Any, network: Any, config: Any) -> Any:
        monkeypatch.setattr("specbeam.engines.tensorrt.library._tell", interrupted)
        builder._logger.log(fake_tensorrt.ILogger.VERBOSE, "Layers:\nName: x")
        return build_it(builder, network, config)

    monkeypatch.setattr(fake_tensorrt.Builder, "build_serialized_network", building)
    with pytest.raises(KeyboardInterrupt):
        build(graphs.fp16, tmp_path / "plan")
    assert not (tmp_path / "plan").exists()


def test_failures_say_what_to_change_and_leave_nothing(graphs: Graphs, gpu: FakeCuda, tmp_path: Path) -> None:
    from fake_tensorrt import Fault

    plan = tmp_path / "plan"
    plan.write_bytes(b"the last one")

    def fails(match: str) -> None:
        with pytest.raises(EngineError, match=match):
            build(graphs.fp32, plan)
        Fault.reset()

    Fault.parser = (("TopK", "node_1", "K is too large"), ("", "", "no such axis"))
    fails(r"cannot import .*:\n- TopK node_1: K is too large\n- graph : no such axis\n.*--check tensorrt")
    Fault.build = "[defaultAllocator.cpp::allocate] Error Code 1: Cuda Runtime (out of memory)"
    fails("ran out of memory .* Lower --max-batch, --max-prompt or --max-nodes, or close what else")
    Fault.build = "Could not find any implementation for node MatMul"
    fails("Could not find any implementation for node MatMul. If no kernel fitted, raise --workspace or lower --max-b")
    Fault.builder = "CUDA initialization failure with error: 35"
    fails(r"cannot start its builder here: CUDA initialization failure with error: 35. .* an NVIDIA GPU")
    gpu.reset(gpus=0)
    fails("No NVIDIA GPU can be used here")
    gpu.reset(memory=1000)
    fails(r"4 requests with 60 slots each takes 0.0 GiB .*Lower --max-batch")
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]
    assert plan.read_bytes() == b"the last one"


def test_profiles_are_checked_before_anything_is_imported(graphs: Graphs, tmp_path: Path) -> None:
    profiles = profiles_for("target", FACTS, LIMITS, LENGTH)
    profiles = (profiles[0], replace(profiles[1], shapes={}))
    settings = {"limits": LIMITS, "identifier_length": LENGTH, "kind": FP32, "options": TrtOptions()}
    with pytest.raises(EngineError, match="profile 'verify': the graph's input input_ids has no shapes"):
        build_plan(graphs.fp32, tmp_path / "plan", FACTS, profiles, **settings)
    with pytest.raises(EngineError, match=r"input attention_mask has no shapes\n(.*\n)*.*which the graph has not"):
        build(graphs.exported, tmp_path / "plan")


def test_without_tensorrt_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, graphs: Graphs, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=f"TensorRT is not usable here .*{re.escape(install('tensorrt'))}"):
        build(graphs.fp32, tmp_path / "plan")


def test_a_gpu_that_cannot_be_asked_is_let_go(
    graphs: Graphs, gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from specbeam.engines.cuda import Device

    def fails(device: Device) -> str:
        raise EngineError("no answer")

    closed: list[Device] = []
    monkeypatch.setattr(Device, "compute_capability", fails)
    monkeypatch.setattr(Device, "close", lambda device: closed.append(device))
    with pytest.raises(EngineError, match="no answer"):
        build(graphs.fp32, tmp_path / "plan")
    with pytest.raises(EngineError, match="no answer"):
        load_trt_engine(
            tmp_path / "plan", FACTS, facts_of("10.16.1.11"), columns=1, cache_precision="fp32", rebuild="rebuild"
        )  # fmt: skip
    assert len(closed) == 2


def test_without_polygraphy_the_extra_is_named(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    from specbeam.engines.cuda import Device

    monkeypatch.setitem(sys.modules, "polygraphy.cuda", None)
    remedy = re.escape(install("tensorrt", only="polygraphy"))
    with pytest.raises(EngineError, match=f"Polygraphy is not usable here .*{remedy}$"):
        Device()


def test_loading_plans_needs_no_onnx_and_no_builder_code() -> None:
    code = (
        "import sys, specbeam.engines.tensorrt.load, specbeam.engines.tensorrt.build\n"
        "found = {'onnx', 'onnx_ir', 'torch', 'tensorrt', 'polygraphy'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in counts as installed."""
    from specbeam.engines import registry

    version = registry.backend_version
    monkeypatch.setattr(registry, "backend_version", lambda name: "10" if name == "tensorrt" else version(name))


HISTORIES = [["3", "7"], ["1"], ["5", "5", "2"], ["9"], ["4", "8"]]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_bundle_is_built_and_recommends(
    bundle: Path, gpu: FakeCuda, installed: None, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import trt_loop

    name = trt_loop.build(bundle, precision)
    assert name == f"tensorrt-cuda-{precision}"
    roles = trt_loop.roles(bundle, name)
    assert roles["target"].tensorrt.profiles == ("prefill+verify", "verify")
    assert roles["draft"].tensorrt.profiles == ("prefill", "draft step")
    assert "target" in trt_loop.latency_table(name, roles)
    assert trt_loop.loop(bundle, name, HISTORIES) > 0.9
    out, err = capsys.readouterr()
    assert out + err == ""  # Polygraphy is kept quiet


def test_an_int8_bundle_is_built_and_recommends(bundle: Path, gpu: FakeCuda, installed: None) -> None:
    import trt_loop

    name = trt_loop.build_int8(bundle)
    roles = trt_loop.roles(bundle, name)
    assert {(facts.precision, facts.cache) for facts in roles.values()} == {("int8", "fp16")}
    assert trt_loop.loop(bundle, name, HISTORIES) > 0.5
