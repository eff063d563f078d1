"""What keeps a model from loading is said by Triton's answer to the load, in our words; what serves goes on serving."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.serving.triton import Triton
from tiny_bundle import ENGINE, Tiny, edit_engine
from triton_cases import ask, package

pytestmark = pytest.mark.services


@pytest.fixture
def model(tiny: Tiny, repository: Path, tmp_path: Path) -> Path:
    """A model "other", to be spoiled, in the environment of the one that serves."""
    shutil.rmtree(repository / "other", ignore_errors=True)
    package(tiny.bundle, repository, "other", "--threads", 1)
    (repository / "other" / "environment" / "venv").symlink_to(repository / "tiny" / "environment" / "venv")
    return repository / "other"


def refused(running: Triton) -> str:
    with pytest.raises(RuntimeError) as error:
        running.load("other")
    told = str(json.loads(str(error.value))["error"])
    assert "Traceback" not in told
    return told


def edit_config(model: Path, before: str, after: str) -> None:
    config = model / "config.pbtxt"
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after))


def test_another_onnx_runtime(running: Triton, model: Path) -> None:
    edit_engine(model / "1" / "bundle", lambda facts: facts["versions"].update(onnxruntime="1.2.3"))
    assert f"Engine {ENGINE}" in (told := refused(running))
    assert "was built by onnxruntime 1.2.3, installed is" in told


def test_no_bundle(running: Triton, model: Path) -> None:
    shutil.rmtree(model / "1" / "bundle")
    assert "manifest.json" in refused(running)


def test_an_unknown_setting(running: Triton, model: Path) -> None:
    edit_config(model, '"threads":1', '"threads":1,"speed":9')
    told = refused(running)
    assert "config.pbtxt, parameter 'specbeam': the value cannot be read" in told
    assert "unknown field `speed`" in told


def test_the_wrong_kind_of_instance(running: Triton, model: Path) -> None:
    edit_config(model, "KIND_CPU", "KIND_GPU")
    told = refused(running)
    assert "Write KIND_CPU there" in told or "GPU" in told  # Triton itself refuses GPUs where it finds none


def test_an_environment_without_specbeam(running: Triton, model: Path) -> None:
    whole = (model / "environment" / "venv").resolve()
    (model / "environment" / "venv").unlink()
    bare = model / "environment" / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    (packages,) = whole.glob("lib/python*/site-packages")
    for numpy in packages.glob("numpy*"):
        (bare / packages.relative_to(whole) / numpy.name).symlink_to(numpy)
    told = refused(running)
    assert "No module named 'specbeam'" in told
    assert "bash environment/make.sh SPECBEAM-WHEEL" in told


def test_what_serves_goes_on(triton_python: Path, running: Triton, model: Path, tmp_path: Path) -> None:
    shutil.rmtree(model / "1" / "bundle")
    refused(running)
    told = ask(triton_python, running, "tiny", [{"inputs": {"items": [["1"]]}}], tmp_path)
    assert all("error" not in protocol[0] for protocol in told.values())


def test_a_version_that_does_not_load_leaves_the_one_before(
    triton_python: Path, running: Triton, model: Path, tiny: Tiny, tmp_path: Path
) -> None:
    running.load("other")
    package(tiny.bundle, model.parent, "other")
    shutil.rmtree(model / "2" / "bundle")
    refused(running)
    told = ask(triton_python, running, "other", [{"inputs": {"items": [["1"]]}}], tmp_path)
    assert [protocol[0]["version"] for protocol in told.values()] == ["1", "1"]
