"""Standard output carries results only, whatever libraries print meanwhile."""

import json
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from commands import bad, lines
from specbeam.calib.observe import _session
from specbeam.catalog.errors import EngineError, ExportError
from specbeam.engines.onnxruntime import cpu as ort
from specbeam.engines.onnxruntime.cpu import open_session, session_options
from specbeam.export.parity import onnx_forward
from tiny_bundle import Tiny

# A run in which a library prints: from Python, and from C, where what is printed is held back to the end.
NOISY = """
import ctypes
from specbeam.cli import main
from specbeam.runtime import Recommender
opened = Recommender.of
def noisy(*arguments, **options):
    print("said in Python")
    ctypes.CDLL(None).puts(b"said in C")
    return opened(*arguments, **options)
Recommender.of = noisy
main()
"""


def test_what_libraries_print_goes_elsewhere(tiny: Tiny, histories: Path) -> None:
    arguments = ["infer", str(tiny.bundle), str(histories), "-o", "-", "-k", "2", "--threads", "1"]
    done = subprocess.run([sys.executable, "-c", NOISY, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["user"] for line in done.stdout.splitlines()] == [f"u{i}" for i in range(6)]
    assert "said in Python" in done.stderr
    assert "said in C" in done.stderr


def test_a_file_as_output_leaves_standard_output_as_it_is(tiny: Tiny, histories: Path, output: Path) -> None:
    arguments = ["infer", str(tiny.bundle), str(histories), "-o", str(output), "-k", "2", "--threads", "1"]
    done = subprocess.run([sys.executable, "-c", NOISY, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(lines(output)) == 6
    assert "said in Python" in done.stdout
    assert "said in C" in done.stdout


class Failing(onnxruntime.InferenceSession):  # type: ignore[misc]
    """As where the device's libraries cannot be loaded: the session with its provider cannot be made."""

    def _create_inference_session(self, *arguments: object, **options: object) -> None:
        self._fallback_providers = ["CPUExecutionProvider"]
        raise RuntimeError("libcudnn.so.9: cannot open shared object file")


def test_sessions_that_cannot_be_made_print_nothing(
    tiny: Tiny, histories: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = tiny.bundle / "target" / "model.onnx"
    with pytest.raises(RuntimeError):  # so it is by default
        Failing(str(graph), providers=["CPUExecutionProvider"])
    assert "EP Error" in capfd.readouterr().out
    monkeypatch.setattr(onnxruntime, "InferenceSession", Failing)
    with pytest.raises(EngineError, match=r"cannot load .* on cpu: libcudnn"):
        open_session(graph, "cpu", session_options(1))
    with pytest.raises(ExportError, match="cannot load the exported graph: libcudnn"):
        onnx_forward(graph)
    with pytest.raises(EngineError, match=r"cannot run .* for calibration: libcudnn"):
        _session(graph, [], 1)
    assert capfd.readouterr().out == ""
    assert "cannot load" in bad("infer", tiny.bundle, histories, "-o", "-")


def test_a_provider_that_silently_did_not_start(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ort, "check_provider", lambda device: "CUDAExecutionProvider")
    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", lambda self, *_, **__: None)
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match=r"could not start its CUDAExecutionProvider for .*driver and libraries"):
        open_session(tiny.bundle / "target" / "model.onnx", "cuda", session_options(1))
    assert capfd.readouterr().out == ""
