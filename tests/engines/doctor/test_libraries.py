"""Libraries that are absent, broken or damaged, and what is said of them."""

import json
import os
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
from device_engines import PATH, built
from fake_cuda import FakeCuda
from specbeam.catalog.errors import EngineError
from specbeam.catalog.extras import declared, install
from specbeam.engines import installed
from specbeam.engines.bundle.facts import Limits
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.doctor import trial
from specbeam.engines.doctor.examine import examine
from specbeam.engines.doctor.health import Package, describe
from specbeam.engines.doctor.trial import tried, try_backend
from specbeam.engines.registry import whole_library
from tiny_bundle import Tiny

NEEDED = ("specbeam", "click", "msgspec", "numpy", "safetensors", "tqdm")


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
    from specbeam.engines.tensorrt.flavour import TENSORRT

    def fails(name: str) -> None:
        raise fault

    monkeypatch.setattr(trt_library.importlib, "import_module", fails)
    with pytest.raises(EngineError, match=f"TensorRT is not usable here .*{fault}.*pip install"):
        trt_library.import_tensorrt(TENSORRT)


def test_what_builds_without_a_gpu_runs_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from specbeam.engines import cuda
    from specbeam.engines.doctor import trial
    from specbeam.engines.tensorrt.backend import TensorRTBackend
    from specbeam.engines.tensorrt.flavour import RTX

    def no_gpu() -> None:
        raise EngineError("No NVIDIA GPU can be used here.")

    monkeypatch.setattr(trial, "find_backend", lambda *named: TensorRTBackend("cuda", flavour=RTX))
    monkeypatch.setattr(TensorRTBackend, "versions", lambda backend: {"tensorrt-rtx": "1.7"})
    monkeypatch.setattr(cuda, "Device", no_gpu)
    with pytest.raises(
        EngineError, match=r"It builds engines here \(1\.7\); they run where there is a GPU\. No NVIDIA"
    ):
        trial.try_backend("tensorrt-rtx", "cuda")


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
