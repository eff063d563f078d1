"""TensorRT for RTX on a stand-in for it: compiled where there is no GPU, finished and run where there is one."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

import fake_tensorrt_rtx as fake
import trt_loop
from fake_cuda import FakeCuda
from specbeam.catalog.errors import BundleError, EngineError, OptionError, RefusedError
from specbeam.catalog.extras import install
from specbeam.cli import main
from specbeam.engines.build import build_engine
from specbeam.engines.bundle import measured
from specbeam.engines.bundle.facts import EngineFacts
from specbeam.engines.bundle.inspect import describe
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.bundle.measured import MEASURED_SCHEMA, Measured
from specbeam.engines.bundle.sealed import read_sealed, sealed
from specbeam.engines.finish import finish_engine
from specbeam.engines.machine.gpus import Gpu
from specbeam.engines.registry import find_backend, load_engine
from specbeam.engines.tensorrt.backend import CallSizes, TensorRTBackend
from specbeam.engines.tensorrt.build import TrtOptions
from specbeam.engines.tensorrt.flavour import RTX
from specbeam.evaluate.tune import tune
from specbeam.runtime import Drafting, EngineChoice, Recommender
from trt_cases import Graphs, build

pytest.importorskip("polygraphy")
NAME = "tensorrt-rtx-cuda-fp16"
HISTORIES = [["3", "7"], ["1"], ["5", "5", "2"], ["9"], ["4", "8"]]
GPU = Gpu(name="NVIDIA GeForce RTX 3090", memory=24 << 30, free=20 << 30, compute_capability="8.6")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in counts as installed."""
    from specbeam.engines import registry

    version = registry.backend_version
    monkeypatch.setattr(registry, "backend_version", lambda name: "1.7" if name == "tensorrt-rtx" else version(name))


@pytest.fixture
def rtx(gpu: FakeCuda) -> FakeCuda:
    """A machine with the GPU that the stand-in's plans are finished for."""
    gpu.reset(capability=(8, 6))
    fake.IRuntimeCache.loaded.clear()
    return gpu


@pytest.fixture
def compiled(bundle: Path, rtx: FakeCuda) -> Path:
    """A bundle with an engine that was built where there was no GPU."""
    rtx.reset(gpus=0)
    sizes = CallSizes(max_batch=8, max_nodes=64)
    built = build_engine(bundle, backend=TensorRTBackend("cuda", sizes, flavour=RTX), precision="fp16", threads=1)
    assert built.name == NAME
    rtx.reset(capability=(8, 6))
    return bundle


def facts_of(bundle: Path) -> EngineFacts:
    return Bundle.open(bundle).engine_facts(NAME)


def test_it_is_compiled_without_a_gpu_and_not_measured(compiled: Path) -> None:
    facts = facts_of(compiled)
    assert not facts.measured
    for role in facts.roles.values():
        assert (role.latency, role.max_difference) == ((), None)
        assert role.tensorrt is not None
        assert role.tensorrt.compiled_for == ("8.0", "8.6", "8.9", "12.0")
        assert role.tensorrt.compute_capability is None
    told = CliRunner().invoke(main, ["inspect", str(compiled)])
    assert "target (fp16): built without a GPU, and not compared or timed on this machine's" in told.output


def test_the_library_is_asked_whether_plans_are_valid(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> str:
        done = CliRunner().invoke(main, ["inspect", str(compiled), "--engine", NAME])
        assert done.exit_code == 0, done.output
        return done.output

    assert "draft: compiled for 8.0, 8.6, 8.9, 12.0; valid here" in told()
    plan = compiled / "engines" / NAME / "draft" / "model.plan"
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-9])
    assert "draft/model.plan is missing or damaged. Write it again with: specbeam build-engine" in told()
    plan.write_bytes(b"no plan" + whole[7:])
    assert "target: compiled for 8.0, 8.6, 8.9, 12.0; valid here" in told()
    assert "draft: compiled for 8.0, 8.6, 8.9, 12.0; cannot run here: it is damaged, or no plan" in told()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert "not asked, TensorRT for RTX is not installed here" in told()


def test_it_runs_before_it_is_measured_and_only_planning_has_to_wait(compiled: Path) -> None:
    results = Recommender.open(compiled, engine=EngineChoice(NAME, threads=1)).recommend(HISTORIES, k=5)
    assert [len(result.items) for result in results] == [5] * 5
    with pytest.raises(OptionError, match=f"no measured latency to plan by. .*build-engine .*--finish {NAME}"):
        Recommender.open(compiled, engine=EngineChoice(NAME), drafting=Drafting("model", speculation="auto"))


def test_finishing_measures_and_keeps_kernels(compiled: Path) -> None:
    path = finish_engine(compiled, NAME, threads=1)
    assert path.name == "measured-gpu-of-compute-capability-8-6.json"
    facts = facts_of(compiled)
    assert facts.measured
    assert all(role.latency and role.max_difference is not None for role in facts.roles.values())
    kept = {file.name: file.read_bytes() for file in path.parent.glob("kernels-*")}
    assert set(kept.values()) == {fake.KERNELS}
    assert len(kept) == 2
    fake.IRuntimeCache.loaded.clear()
    assert trt_loop.loop(compiled, NAME, HISTORIES) > 0.9
    assert set(fake.IRuntimeCache.loaded) == {fake.KERNELS}
    Recommender.open(compiled, engine=EngineChoice(NAME), drafting=Drafting("model", speculation="auto"))
    done = CliRunner().invoke(main, ["inspect", str(compiled), "--checksums"])
    assert done.exit_code == 0, done.output
    assert "listed nowhere" not in done.output


def test_it_is_finished_by_the_command_and_says_where_that_is_kept(compiled: Path) -> None:
    done = CliRunner().invoke(main, ["build-engine", str(compiled), "--finish", NAME, "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert "target (fp16): ms a call (batch 1), differs from the exported graph by" in done.output
    assert re.search(r"Kept in .*/measured-.*\.json\.", done.output)
    refused = CliRunner().invoke(main, ["build-engine", str(compiled), "--finish", NAME, "--precision", "fp16"])
    assert refused.exit_code == 1
    assert "--finish builds nothing; got --precision as well" in refused.output


def test_tuning_finishes_it_first(compiled: Path) -> None:
    build_engine(compiled, backend=TensorRTBackend("cuda", flavour=RTX), precision="fp16", threads=1, overwrite=True)
    tune(compiled, HISTORIES * 4, engine=EngineChoice(NAME, threads=1), top_k=[3])
    assert facts_of(compiled).measured


def test_two_kinds_of_gpu_share_an_engine(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(GPU, name="NVIDIA RTX A6000")
    for each in (GPU, other):
        monkeypatch.setattr("specbeam.engines.finish.used_gpu", lambda each=each: each)
        monkeypatch.setattr(measured, "used_gpu", lambda each=each: each)
        assert not facts_of(compiled).measured
        finish_engine(compiled, NAME, threads=1)
        assert facts_of(compiled).measured
    names = {path.name for path in (compiled / "engines" / NAME).glob("measured-*")}
    assert names == {"measured-nvidia-geforce-rtx-3090.json", "measured-nvidia-rtx-a6000.json"}
    monkeypatch.setattr(measured, "used_gpu", lambda: None)  # two, and nobody says which
    assert not facts_of(compiled).measured


def test_damaged_kernels_are_not_run(compiled: Path) -> None:
    finish_engine(compiled, NAME, threads=1)
    file = next((compiled / "engines" / NAME).glob("kernels-*-target-*.cache"))
    file.write_bytes(b"something else!")
    fake.IRuntimeCache.loaded.clear()
    assert load_engine(Bundle.open(compiled), "target", NAME, threads=1).columns
    assert fake.IRuntimeCache.loaded == []
    told = CliRunner().invoke(main, ["inspect", str(compiled), "--checksums"]).output
    assert re.search(f"{file.name} is damaged.*--finish", told)
    finish_engine(compiled, NAME, threads=1)
    assert load_engine(Bundle.open(compiled), "target", NAME, threads=1).columns
    assert fake.IRuntimeCache.loaded


def test_finishing_again_takes_the_place_of_what_was_measured(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish_engine(compiled, NAME, threads=1)
    before = {path.name for path in (compiled / "engines" / NAME).glob("kernels-*")}
    monkeypatch.setattr(fake, "KERNELS", b"kernels of a later driver")
    finish_engine(compiled, NAME, threads=1)
    after = {path.name for path in (compiled / "engines" / NAME).glob("kernels-*")}
    assert len(after) == len(before) == 2
    assert not after & before


def test_a_damaged_measurement_is_measured_again(compiled: Path) -> None:
    path = finish_engine(compiled, NAME, threads=1)
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(BundleError, match=f"{path.name} is damaged.*--finish {NAME}"):
        facts_of(compiled)
    checked = CliRunner().invoke(main, ["inspect", str(compiled), "--checksums"])
    assert ": 1 damaged" in checked.output
    assert finish_engine(compiled, NAME, threads=1) == path
    assert facts_of(compiled).measured
    assert "measured on GPU of compute capability 8.6; below: GPU of compute" in describe(compiled)


def test_a_measurement_of_another_engine_is_told(compiled: Path) -> None:
    path = finish_engine(compiled, NAME, threads=1)
    content = read_sealed(path, Measured, "", MEASURED_SCHEMA)
    path.write_bytes(sealed(replace(content, engine="0" * 64)))
    assert not facts_of(compiled).measured
    assert (
        "was measured of another engine" in CliRunner().invoke(main, ["inspect", str(compiled), "--checksums"]).output
    )


def test_measurements_of_an_engine_that_was_built_again_are_gone(compiled: Path) -> None:
    finish_engine(compiled, NAME, threads=1)
    build_engine(compiled, backend=TensorRTBackend("cuda", flavour=RTX), precision="fp16", threads=1, overwrite=True)
    assert not facts_of(compiled).measured


def test_nothing_is_kept_where_finishing_fails(compiled: Path, gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(path.name for path in (compiled / "engines" / NAME).iterdir())

    def fails(match: str) -> None:
        with pytest.raises(EngineError, match=match):
            finish_engine(compiled, NAME, threads=1)
        assert sorted(path.name for path in (compiled / "engines" / NAME).iterdir()) == before

    gpu.reset(capability=(9, 0))
    fails(
        "compiled for GPUs of compute capability 8.0, 8.6, 8.9, 12.0; this one has 9.0. TensorRT for RTX does not sup"
    )
    gpu.reset(capability=(7, 5))
    fails("has 7.5. Compile it for this one, too: specbeam build-engine .* --compute-capability 7.5,8.0,8.6,8.9,12.0")
    gpu.reset(gpus=0)
    fails("No NVIDIA GPU can be used here")


def test_an_engine_that_was_refused_is_not_opened_there(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish_engine(compiled, NAME, threads=1)
    monkeypatch.setattr("specbeam.engines.build.TOLERANCE", {"fp16": 0.0})
    with pytest.raises(RefusedError, match=r"The target, built in fp16, differs from .* by .* in a log-probability"):
        finish_engine(compiled, NAME, threads=1)
    assert not facts_of(compiled).measured
    with pytest.raises(EngineError, match=f"{NAME} was refused when it was finished on this GPU: The target.*--finish"):
        load_engine(Bundle.open(compiled), "target", NAME, threads=1)
    command = ["build-engine", str(compiled), "--backend", "tensorrt-rtx", "--precision", "fp16", "--overwrite"]
    refused = CliRunner().invoke(main, [*command, "--threads", "1"])  # this machine has such a GPU
    assert refused.exit_code == 1
    assert "The target, built in fp16, differs from" in refused.output
    monkeypatch.undo()
    monkeypatch.setattr("specbeam.engines.registry.backend_version", lambda name: "1.7")
    finish_engine(compiled, NAME, threads=1)
    assert facts_of(compiled).measured
    assert load_engine(Bundle.open(compiled), "target", NAME, threads=1).columns


def test_only_what_was_built_elsewhere_is_finished(compiled: Path) -> None:
    with pytest.raises(EngineError, match="onnxruntime-cpu-fp32 was compared and timed when it was built"):
        finish_engine(compiled, trt_loop.REFERENCE)
    with pytest.raises(BundleError, match="has no engine 'tensorrt-rtx-cuda-bf16'"):
        finish_engine(compiled, "tensorrt-rtx-cuda-bf16")


def sealed_again(bundle: Path, change: Callable[[EngineFacts], EngineFacts]) -> None:
    """Change what an engine says of itself."""
    file = bundle / "engines" / NAME / "engine.json"
    file.write_bytes(sealed(change(facts_of(bundle))))


def test_plans_that_do_not_fit_say_so(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(match: str) -> None:
        with pytest.raises((EngineError, BundleError), match=match):
            load_engine(Bundle.open(compiled), "target", NAME, threads=1)

    monkeypatch.setattr(fake, "__version__", "1.8.0.2")
    fails("was built by TensorRT for RTX 1.7.1.116 and needs 1.7.1; here is 1.8.0.2. Run: specbeam build-engine")
    monkeypatch.undo()
    monkeypatch.setattr("specbeam.engines.registry.backend_version", lambda name: "1.7")
    monkeypatch.setattr(fake, "HERE", "SM80")  # it fits by what it says, and the library knows better
    sealed_again(compiled, lambda facts: facts)
    plan = compiled / "engines" / NAME / "target" / "model.plan"
    whole = plan.read_bytes()
    plan.write_bytes(whole[: len(whole) // 2])
    fails("model.plan has .* bytes, expected")
    plan.write_bytes(whole)
    content = json.loads(whole)
    content["targets"] = ["SM120"]
    plan.write_bytes(json.dumps(content).encode())
    sealed_again(compiled, lambda facts: replace(facts, files=_files(compiled)))
    fails(r"cannot run .*model.plan here: it was not compiled for this GPU's compute capability. Run: specbeam build-e")
    plan.write_bytes(b"no plan")
    sealed_again(compiled, lambda facts: replace(facts, files=_files(compiled)))
    fails("here: it is damaged, or no plan. Run: specbeam build-engine")


def _files(bundle: Path) -> dict[str, object]:
    from specbeam.engines.bundle.checksums import file_facts

    found = file_facts(bundle / "engines" / NAME)
    return {name: facts for name, facts in found.items() if "/" in name}


def test_targets_reach_the_compiler(graphs: Graphs, rtx: FakeCuda, tmp_path: Path) -> None:
    def targets(*asked: str) -> tuple[tuple[str, ...], list[str]]:
        options = TrtOptions(compute_capabilities=asked)
        facts = build(graphs.fp16, tmp_path / "plan", options=options, flavour=RTX)
        return facts.compiled_for, json.loads((tmp_path / "plan").read_bytes())["targets"]

    assert targets() == (RTX.usual, fake.USUAL)
    assert targets("8.6") == (("8.6",), ["SM86"])
    assert targets("7.5", "12.1") == (("7.5", "12.1"), ["SM75", "SM121"])


def test_what_cannot_be_is_refused_before_anything_is_built(bundle: Path, rtx: FakeCuda) -> None:
    def fails(match: str, *arguments: str) -> None:
        command = ["build-engine", str(bundle), "--backend", "tensorrt-rtx", *arguments]
        done = CliRunner().invoke(main, command)
        assert done.exit_code != 0
        assert re.search(match, " ".join(done.output.split())), done.output
        assert not list((bundle / "engines").glob("tensorrt*"))

    fails(
        "compiles for GPUs of compute capability 7.5, 8.0, .*; got 9.0. Leave that out", "--compute-capability", "9.0"
    )
    fails(
        "7.5 have no kernels for fp32 products .* Leave 7.5 out of .*, or build it in fp16",
        "--compute-capability",
        "7.5,8.6",
    )
    fails("7.5 have no kernels for bf16", "--compute-capability", "7.5", "--precision", "bf16")
    fails("expected compute capabilities such as 8.6,8.9", "--compute-capability", "ampere")
    fails("runs fp32, fp16, bf16, int8-weights; got int8", "--precision", "int8")
    fails("TensorRT for RTX times no kernels", "--precision", "fp16", "--timing-cache", "t.cache")
    fails("runs on the very version", "--precision", "fp16", "--version-compatible")
    mixed = ("--precision", "fp16", "--draft-precision", "bf16", "--compute-capability", "7.5,8.6")
    fails(r"no kernels for bf16 products .*; got the precision bf16 \(--precision or --draft-precision\)", *mixed)
    fails("by their --compute-capability", "--precision", "fp16", "--hardware-compatible")
    fails("runs on cuda; got the device 'cpu'", "--device", "cpu")
    with pytest.raises(OptionError, match="TensorRT builds for the GPU at hand"):
        find_backend("tensorrt-rtx") and TensorRTBackend("cuda", options=TrtOptions(compute_capabilities=("8.6",)))


def test_without_the_library_the_extra_is_named(bundle: Path, rtx: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(
        EngineError, match=f"TensorRT for RTX is not usable here .*{re.escape(install('tensorrt-rtx'))}"
    ):
        build_engine(bundle, backend=TensorRTBackend("cuda", flavour=RTX), precision="fp16", threads=1)


def test_an_earlier_engine_stays_where_building_fails(compiled: Path) -> None:
    before = sorted((path, path.read_bytes()) for path in (compiled / "engines" / NAME).rglob("*") if path.is_file())
    fake.fake_tensorrt.Fault.build = "no kernel for this"
    with pytest.raises(
        EngineError, match=r"TensorRT for RTX 1\.7\.1\.116 could not build the plan: no kernel for this"
    ):
        build_engine(compiled, backend=TensorRTBackend("cuda", flavour=RTX), precision="fp16", overwrite=True)
    fake.fake_tensorrt.Fault.reset()
    assert before == sorted((p, p.read_bytes()) for p in (compiled / "engines" / NAME).rglob("*") if p.is_file())


def test_a_graph_that_changed_since_is_told(compiled: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(compiled, tmp_path / "moved")
    facts = facts_of(moved)
    roles = {role: replace(each, source_sha256="0" * 64) for role, each in facts.roles.items()}
    sealed_again(moved, lambda facts: replace(facts, roles=roles))
    with pytest.raises(
        BundleError, match=r"was built from another target than the bundle's\. Run: specbeam build-engine"
    ):
        load_engine(Bundle.open(moved), "target", NAME, threads=1)
