"""doctor: what of a machine can be used, and which engines of a bundle run on it; whatever is missing or broken."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import onnx
import pytest

import specbeam
import specbeam.engines.doctor.examine as doctor_module
from commands import good, run
from device_engines import PATH, built
from fake_cuda import FakeCuda
from specbeam.catalog.errors import EngineError
from specbeam.catalog.extras import declared, install
from specbeam.engines import installed
from specbeam.engines.bundle.facts import Limits
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.doctor import trial
from specbeam.engines.doctor.examine import examine
from specbeam.engines.doctor.health import Package, Usable, describe
from specbeam.engines.doctor.trial import tried, try_backend, try_engine
from specbeam.engines.machine import gpus
from specbeam.engines.machine import processors as machine
from specbeam.engines.machine.cgroups import Allowance, allowance
from specbeam.engines.registry import chosen_threads, whole_library
from tiny_bundle import ENGINE, Tiny, break_rows, edit_engine

OTHER = "onnxruntime-cpu-fp16"
NEEDED = ("specbeam", "click", "msgspec", "numpy", "safetensors", "tqdm")


@pytest.fixture
def no_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends are not tried: engines are what is looked at, and each trial starts a process."""
    usable = Usable(backend="onnxruntime", device="cpu", runs=True, fault=None, offers=())
    monkeypatch.setattr(doctor_module, "_backend", lambda name, device, stage: usable)


def told(*arguments: object) -> tuple[int, dict[str, Any]]:
    """doctor's exit status, and what it says as JSON."""
    result = run("doctor", *arguments, "--json")
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, json.loads(result.stdout)


# --- the bundle's engines


def test_an_engine_that_runs(tiny: Tiny) -> None:
    result = good("doctor", tiny.bundle)
    assert f"{tiny.bundle}: 1 of 1 engines run here\n  {ENGINE}, the default: runs\n" in result.stdout
    assert "onnxruntime on cpu: runs (" in result.stdout
    for stage in ("looking at the machine", "trying onnxruntime on cpu", f"trying the engine {ENGINE} ("):
        assert stage in result.stderr
    status, health = told(tiny.bundle)
    assert (status, health["healthy"]) == (0, True)
    assert health["bundle"]["engines"] == [{"name": ENGINE, "runs": True, "fault": None, "remedy": None}]


@pytest.mark.usefixtures("no_backends")
def test_an_engine_runs_if_it_answers_and_not_if_it_merely_opens(bundle: Path) -> None:
    assert try_engine(bundle, ENGINE, 1) == ("target", "draft")
    shutil.copytree(bundle / "engines" / ENGINE, bundle / "engines" / OTHER)
    break_rows(bundle, slice(None), "draft")
    status, health = told(bundle)
    engines = {engine["name"]: engine for engine in health["bundle"]["engines"]}
    assert (status, engines[OTHER]["runs"], engines[ENGINE]["runs"]) == (0, True, False)
    assert engines[ENGINE]["fault"].startswith(f"The draft of {ENGINE} gives NaN or infinity as a log-probability.")
    assert f"the default does not run here: choose another with --engine {OTHER}" in describe(examine(bundle))
    shutil.rmtree(bundle / "engines" / OTHER)
    status, health = told(bundle)
    assert (status, health["healthy"]) == (1, False)
    good(*health["bundle"]["engines"][0]["remedy"].split()[1:])  # as it is said
    assert told(bundle)[0] == 0


@pytest.mark.usefixtures("no_backends")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda facts: facts["versions"].update(onnxruntime="1.2.3"), "was built by onnxruntime 1.2.3, installed is"),
        (lambda facts: facts["roles"].pop("draft"), f"Engine {ENGINE} of .* has no draft"),
        (lambda facts: facts["roles"]["target"].update(source_sha256="0"), "was built from another target"),
        (lambda facts: facts.update(device="abacus"), "the device 'abacus'"),
        (lambda facts: facts.update(backend="abacus"), "There is no backend 'abacus'"),
    ],
)
def test_an_engine_of_elsewhere_is_told_of_with_the_command_that_makes_it_again(
    bundle: Path, change: Any, said: str
) -> None:
    edit_engine(bundle, change)
    result = run("doctor", bundle)
    assert result.exit_code == 1
    assert re.search(f"  {ENGINE}, the default: does not run. .*{said}", result.stdout)
    assert f"specbeam build-engine {bundle} --backend onnxruntime --device cpu --overwrite" in result.stdout


def test_an_engine_for_a_device_that_is_not_here(bundle: Path) -> None:
    edit_engine(bundle, lambda facts: facts.update(backend="onnxruntime", device="cuda"))
    shutil.move(bundle / "engines" / ENGINE, bundle / "engines" / "onnxruntime-cuda-fp32")
    status, health = told(bundle)
    (engine,) = health["bundle"]["engines"]
    if health["backends"][1]["runs"]:
        pytest.skip("there is a GPU here")
    assert (status, engine["runs"]) == (1, False)
    assert engine["remedy"] == f"specbeam build-engine {bundle} --backend onnxruntime --device cuda --overwrite"


@pytest.mark.usefixtures("no_backends")
@pytest.mark.parametrize("name", ["manifest.json", "engines/default.json", f"engines/{ENGINE}/engine.json"])
def test_damaged_files_are_told_of_and_the_rest_is_shown(
    bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    shutil.copytree(bundle / "engines" / ENGINE, bundle / "engines" / OTHER)
    monkeypatch.setattr(doctor_module, "tried", lambda *_: trial.Answer((), None))
    for content in (b"[]", b'{"schema_version": 99}', b"", b"\xff{"):
        (bundle / name).write_bytes(content)
        status, health = told(bundle)
        assert status == (name == "manifest.json")  # else an engine runs
    found = health["bundle"]
    fault = {"manifest.json": found["fault"], "engines/default.json": found["default_fault"]}.get(
        name, next((engine["fault"] for engine in found["engines"] if not engine["runs"]), None)
    )
    assert str(bundle / name) in fault
    assert health["processors"]["usable"] >= 1
    assert str(bundle / name) in run("doctor", bundle).stdout


@pytest.mark.usefixtures("no_backends")
def test_no_bundle_a_pool_and_a_bundle_without_engines(bundle: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "none", bundle / "draft", tmp_path / "x" / "\udcff"):
        result = run("doctor", path)
        assert result.exit_code == 1
        assert ": not usable. " in result.stdout
        assert "is not a bundle: it has no manifest.json" in result.stdout
    shutil.rmtree(bundle / "engines")
    result = run("doctor", bundle)
    assert result.exit_code == 1
    assert f"no engine is built. Run: specbeam build-engine {bundle}\n" in result.stdout


@pytest.mark.usefixtures("no_backends")
def test_damaged_graphs(bundle: Path) -> None:
    (bundle / "engines" / ENGINE / "target/model.onnx").write_bytes(b"no graph")
    status, health = told(bundle)
    assert status == 1
    assert "target/model.onnx has 8 bytes, expected" in health["bundle"]["engines"][0]["fault"]


# --- packages that are missing or broken


def command(*arguments: object, path: Path | None = None, bare: bool = False) -> "subprocess.CompletedProcess[str]":
    """Run the command line in a process of its own, with modules of `path` first (bare: and no others)."""
    code = f"import sys; sys.path.insert(0, {str(path)!r}); from specbeam.cli import main; main(prog_name='specbeam')"
    flags = ["-S", "-E"] if bare else []
    return subprocess.run([sys.executable, *flags, "-c", code, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of packages as a machine has it on which nothing but SpecBeam was installed."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in NEEDED:
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or () if ".." not in file.parts}:
            if top != "__pycache__":
                (folder / top).symlink_to(found.locate_file(top))  # type: ignore[arg-type]
    (folder / "specbeam").unlink(missing_ok=True)
    (folder / "specbeam").symlink_to(Path(specbeam.__file__).parent)
    return folder


def test_a_machine_without_any_extra(tiny: Tiny, bare: Path) -> None:
    done = command("doctor", tiny.bundle, "--json", path=bare, bare=True)
    assert (done.returncode, done.stderr.count("Traceback")) == (1, 0), done.stderr
    health = json.loads(done.stdout)
    extras = {extra["name"]: extra for extra in health["extras"]}
    assert extras[""]["remedy"] is None
    assert all(package["version"] for package in extras[""]["packages"])
    for name in set(declared()) - {"", "dev"}:
        assert extras[name]["remedy"] == install(name)
        assert all(package["version"] is None for package in extras[name]["packages"])
    assert not any(backend["runs"] for backend in health["backends"])
    (engine,) = health["bundle"]["engines"]
    assert engine["fault"] == f"The onnxruntime backend is not installed. Run: {install('cpu')}"
    text = command("doctor", path=bare, bare=True)
    assert text.returncode == 1
    assert f"onnxruntime>=1.23 is not installed. Run: {install('cpu')}\n" in text.stdout


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("raise OSError('libfoo.so: cannot open shared object file')", "cannot be used: libfoo.so: cannot open"),
        ("from onnxruntime.capi import foo", "cannot be used: ModuleNotFoundError: No module named 'onnxruntime.capi'"),
        ("", "cannot be used: AttributeError: "),  # a folder that an uninstallation has left
        ("raise SystemError('x' * 9999)", "cannot be used: SystemError: xxx"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGILL)", "was ended by SIGILL: its library has instructions"),
        ("import os\nos._exit(0)", "ended itself, with status 0"),
    ],
)
def test_a_broken_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, said: str) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime/__init__.py").write_text(library)
    monkeypatch.syspath_prepend(tmp_path)
    answer = tried(try_backend, "onnxruntime", "cpu")
    assert said in str(answer.fault)
    assert len(str(answer.fault)) < 1000


def test_doctor_of_a_broken_library(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime/__init__.py").write_text("print('noise')\nraise RuntimeError('numpy.core failed')")
    done = command("doctor", tiny.bundle, "--json", path=tmp_path)
    assert (done.returncode, done.stderr.count("Traceback")) == (1, 0), done.stderr
    health = json.loads(done.stdout)  # what the library prints is not in it
    assert "cannot be used: RuntimeError: numpy.core failed" in health["backends"][0]["fault"]
    assert health["bundle"]["engines"][0]["fault"] == health["backends"][0]["fault"]


def test_other_verbs_tell_of_a_broken_library_too(tiny: Tiny, histories: Path, output: Path, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime/__init__.py").write_text("raise OSError('libfoo.so: cannot open shared object file')")
    for verb in (["infer", tiny.bundle, histories, "-o", output], ["build-engine", tiny.bundle, "--overwrite"]):
        done = command(*verb, path=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: onnxruntime ")
        assert "Install it again: pip install --force-reinstall onnxruntime\n" in done.stderr
    (tmp_path / "torch.py").write_text("raise OSError(2, 'cannot open shared object file', 'libtorch.so')")
    for verb in (
        ["infer", tiny.bundle, histories, "-o", output, "--engine", "torch-cpu-fp32"],
        ["export", "--target", tiny.target, "--catalog", tiny.index, "-o", tmp_path / "bundle"],
    ):
        done = command(*verb, path=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: torch ")
        assert "cannot open shared object file: 'libtorch.so'. Install it again: pip install" in done.stderr


def test_what_is_not_a_library_s_fault_is_passed_on() -> None:
    for error in (KeyboardInterrupt(), EngineError("ours"), ModuleNotFoundError("no peft", name="peft")):
        with pytest.raises(type(error)) as raised, whole_library("torch"):
            raise error
        assert raised.value is error
    with pytest.raises(EngineError, match=r"torch is not installed\. Run: pip install"), whole_library("torch"):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


@pytest.mark.parametrize("fault", [RuntimeError("magic"), OSError("libnvinfer.so.10: cannot open"), ImportError("x")])
def test_a_broken_tensorrt(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    from specbeam.engines.tensorrt import library as trt_library

    def fails(name: str) -> None:
        raise fault

    monkeypatch.setattr(trt_library.importlib, "import_module", fails)
    with pytest.raises(EngineError, match=f"TensorRT is not usable here .*{fault}.*pip install"):
        trt_library.import_tensorrt()


def test_packages_that_are_old_damaged_or_of_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    versions: dict[str, Any] = {
        "onnxruntime-gpu": "1.30.0",
        "tensorrt-lean-cu12": "10.14.1",
        "onnx": "1.9",
        "torch": None,
    }

    def version(name: str) -> Any:
        if name == "peft":
            raise KeyError("Version")
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor_module, "version", version)
    found = {package.wanted: package for extra in doctor_module._extras() for package in extra.packages}
    assert found["onnxruntime>=1.23"] == Package(
        wanted="onnxruntime>=1.23", name="onnxruntime-gpu", version="1.30.0", fits=True
    )
    assert found["tensorrt>=10.14"].name == "tensorrt-lean-cu12"
    assert found["onnx>=1.19"].version == "1.9"
    assert found["tensorrt>=10.14"].fits
    assert not any(found[wanted].fits for wanted in ("onnx>=1.19", "torch>=2.11", "peft>=0.18", "pyarrow>=18"))
    assert found["torch>=2.11"].version == "unknown"
    assert found["peft>=0.18"].version == "unknown (KeyError: 'Version')"
    monkeypatch.setattr(doctor_module, "tried", lambda *_: trial.Answer((), None))
    text = describe(examine(None))
    assert "onnx 1.9 is older than onnx>=1.19" in text
    versions["onnxruntime"] = "1.31.0"
    assert "note       onnxruntime and onnxruntime-gpu are both installed" in describe(examine(None))
    assert "both installed" not in text


def test_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("specbeam.catalog.extras.requires", absent)
    monkeypatch.setattr(doctor_module, "tried", lambda *_: trial.Answer((), None))
    assert (
        f"SpecBeam is not installed as a package, so what it asks for is not known. Run: {install('cpu')}"
        in describe(examine(None))
    )


# --- trials


def test_the_graph_that_is_tried(tmp_path: Path) -> None:
    model = onnx.load_from_string(trial.NEGATE)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Neg"]
    assert "CPUExecutionProvider" in try_backend("onnxruntime", "cpu")


def test_engines_that_pad_their_caches_answer_too(tiny: Tiny, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny.bundle)
    engine = built(bundle, "target", tmp_path)
    limits = Limits(max_batch=1, max_prompt=2, max_nodes=1, path=PATH)
    trial._call(engine, bundle, "target", "any", limits)
    trial._call(engine, bundle, "target", "any", None)


def test_tensorrt_on_a_gpu(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "version", lambda package: "10.16.1.11")
    assert try_backend("tensorrt", "cuda") == ("10.16.1.11",)
    gpu.reset(gpus=0)
    with pytest.raises(EngineError, match="No NVIDIA GPU can be used here"):
        try_backend("tensorrt", "cuda")


def test_a_trial_s_process_may_end_as_it_likes() -> None:
    assert tried(divmod, 7, 2) == ((3, 1), None)
    assert tried(divmod, 7, 0).fault == "ZeroDivisionError: integer division or modulo by zero"
    assert "ended itself, with status 3" in str(tried(os._exit, 3).fault)
    assert "was ended by SIGKILL: mostly for want of memory" in str(tried(signal.raise_signal, signal.SIGKILL).fault)
    assert "was ended by SIGABRT" in str(tried(os.abort).fault)


def test_a_trial_whose_process_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(process: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(SpawnProcess, "start", fails)
    assert tried(divmod, 7, 2).fault == (
        "no process can be started to try it: [Errno 11] Resource temporarily unavailable"
    )


# --- the machine


V1 = "4:memory:/a/b\n3:cpu,cpuacct:/a\n2:cpuset:/c\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000", "a/cpu.max": "max 100000"}, Allowance(1.5, None)),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, Allowance(2.0, None)),
        ("0::/gone\n", {"cpu.max": "50000 100000", "memory.max": "1000"}, Allowance(0.5, 1000)),
        ("0::/a\n", {"a/memory.max": "max", "memory.max": "4096"}, Allowance(None, 4096)),
        (V1, {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, Allowance(3.0, None)),
        (V1, {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, Allowance(None, None)),
        (V1, {"memory/a/memory.limit_in_bytes": "5000", "memory/a/b/memory.limit_in_bytes": "9223372036854771712"},
         Allowance(None, 5000)),
        ("0::/\n", {"cpu.max": "100000 0", "memory.max": "many"}, Allowance(None, None)),
        ("0::/\n", {"cpu.max": "", "memory.max": ""}, Allowance(None, None)),
        ("nonsense\n\n::", {}, Allowance(None, None)),
        (None, {"cpu.max": "100000 100000"}, Allowance(None, None)),
    ],
)  # fmt: skip
def test_control_groups(tmp_path: Path, own: str | None, files: dict[str, str], expected: Allowance) -> None:
    groups, proc = tmp_path / "groups", tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    if own is not None:
        (proc / "self/cgroup").write_text(own)
    for name, content in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(content + "\n")
    assert allowance(proc, groups) == expected


def test_threads_are_no_more_than_the_control_group_lets_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_affine", lambda: 16)
    for quota, threads in ((None, 16), (64.0, 16), (2.0, 2), (1.5, 2), (0.1, 1)):
        monkeypatch.setattr(machine, "allowance", lambda quota=quota: Allowance(quota, 1 << 30))
        assert chosen_threads(None) == machine.found_processors().usable == threads
        assert chosen_threads(7) == 7  # as asked for
    assert machine.found_memory().limit == 1 << 30


def test_what_is_known_of_this_machine() -> None:
    found, memory = machine.found_processors(), machine.found_memory()
    assert 1 <= found.usable <= found.affine <= found.all
    assert found.name
    assert memory.total is not None
    assert memory.available is None or 0 < memory.available <= memory.total


def test_a_machine_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "PROC", tmp_path)
    found = machine.found_processors()
    assert found.instructions == ()
    assert found.name
    assert machine.found_memory().available is None


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> gpus.Gpus:
    """What is known where nvidia-smi is such a script."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return gpus.found_gpus()


def test_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = smi(tmp_path, monkeypatch, "echo 'H100, 81559, 81000, 570.1, 9.0'; echo 'A10, [N/A], [N/A], 570.1, [N/A]'")
    assert (found.driver, found.fault, found.visible) == ("570.1", None, "1")
    assert found.devices[0] == gpus.Gpu(name="H100", memory=81559 << 20, free=81000 << 20, compute_capability="9.0")
    assert found.devices[1] == gpus.Gpu(name="A10", memory=None, free=None, compute_capability=None)
    monkeypatch.setattr(doctor_module, "tried", lambda *_: trial.Answer((), "it does not"))
    text = describe(examine(None))
    assert "gpu        H100, 85.5 GB, 84.9 GB free, compute capability 9.0\n" in text
    assert "gpu        A10\n" in text
    assert "CUDA_VISIBLE_DEVICES=1" in text
    assert "cuda       driver 570.1" in text


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "version mismatch"),
        ("exit 9", "it ended with status 9"),
        ("echo 'No devices were found'", "got 'No devices were found'; expected name, "),
        ("", "names no GPU"),
        ("printf '\\377\\n'", "got "),
        ("exec sleep 20", "gave no answer in 0.2 s: the driver hangs"),
    ],
)
def test_a_driver_that_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, said: str) -> None:
    monkeypatch.setattr(gpus, "PATIENCE", 0.2 if "sleep" in script else 20)
    found = smi(tmp_path, monkeypatch, script)
    assert found.devices == ()
    assert said in str(found.fault)


def test_no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "nvidia-smi is not here" in str(gpus.found_gpus().fault)
    (tmp_path / "nvidia-smi").write_text("not executable")
    assert gpus.found_gpus().fault is not None
