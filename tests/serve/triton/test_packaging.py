"""package-triton: what it writes, and what it leaves alone."""

import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

import specbeam
from specbeam.catalog.errors import OptionError, SpecBeamError
from specbeam.cli import main
from specbeam.engines.bundle.items import Bundle
from specbeam.serve.triton.config import config_text
from specbeam.serve.triton.recipe import requirements
from specbeam.serve.triton.repository import Packaging, package
from specbeam.serve.triton.settings import TritonSettings, read_settings
from tiny_bundle import ENGINE, Tiny, edit_engine
from upgrade_cases import KEPT

PLAIN = TritonSettings(threads=1)


def packaged(tiny: Tiny, folder: Path, name: str = "shop", settings: TritonSettings = PLAIN, **options: bool) -> Path:
    done = package(Packaging(tiny.bundle, settings), folder, name, **options)
    return done.folder / done.version


def parameter(config: Path) -> str:
    """What Triton makes of the text between the quotes."""
    (found,) = re.findall(r"key: \"specbeam\" value \{ string_value: '(.*)' \}", config.read_text())
    return str(found).replace("\\'", "'").replace("\\\\", "\\")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_repository_holds(tiny: Tiny, tmp_path: Path) -> None:
    version = packaged(tiny, tmp_path)
    assert version == tmp_path / "shop" / "1"
    assert files(version / "bundle") == files(tiny.bundle)
    assert "TritonPythonModel" in (version / "model.py").read_text()
    assert len((version / "model.py").read_text().splitlines()) < 20
    config = tmp_path / "shop" / "config.pbtxt"
    assert read_settings(parameter(config)) == PLAIN
    assert 'name: "shop"' in config.read_text()
    assert "count: 1 kind: KIND_CPU" in config.read_text()
    recipe = (tmp_path / "shop" / "environment" / "requirements.txt").read_text()
    assert f"specbeam {specbeam.__version__}" in recipe
    assert re.search(r"^onnxruntime==\d+\.\d+\.\d+$", recipe, re.M)
    assert re.search(r"^numpy==\d", recipe, re.M)


def test_the_recipe_asks_for_what_built_the_engine(bundle: Path, tmp_path: Path) -> None:
    edit_engine(bundle, lambda facts: facts["versions"].update(onnxruntime="1.30.7"))
    package(Packaging(bundle, PLAIN), tmp_path, "shop")
    assert "onnxruntime==1.30.7\n" in (tmp_path / "shop" / "environment" / "requirements.txt").read_text()


def test_the_recipe_of_an_engine_that_was_compiled_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specbeam.serve.triton.recipe.installed_package", lambda backend: (backend, "1.8"))
    monkeypatch.setattr("specbeam.serve.triton.recipe.version", lambda name: "0.53.6")
    wanted = requirements(Bundle.open(KEPT / "bundle-2-rtx"), "tensorrt-rtx-cuda-fp16").splitlines()
    assert {"tensorrt-rtx==1.7.1.116", "polygraphy==0.53.6", "nvidia-cuda-runtime>=13"} <= set(wanted)


def test_versions_are_added_and_never_touched(tiny: Tiny, tmp_path: Path) -> None:
    first = packaged(tiny, tmp_path)
    before = files(first)
    assert packaged(tiny, tmp_path, overwrite=True).name == "2"
    (tmp_path / "shop" / "7").mkdir()
    assert packaged(tiny, tmp_path).name == "8"
    assert files(first) == before
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == [
        "1", "2", "7", "8", "config.pbtxt", "environment"
    ]  # fmt: skip


def test_an_edited_configuration_is_kept_and_said_so(tiny: Tiny, tmp_path: Path) -> None:
    packaged(tiny, tmp_path)
    config = tmp_path / "shop" / "config.pbtxt"
    edited = config.read_text().replace("count: 1", "count: 2")
    config.write_text(edited)
    command = ["package-triton", str(tiny.bundle), "-o", str(tmp_path), "--name", "shop", "--threads", "1"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert config.read_text() == edited
    assert f"{config} is kept" in done.output
    assert "make.sh is kept" not in done.output
    assert CliRunner().invoke(main, [*command, "--overwrite"]).exit_code == 0
    assert "count: 1" in config.read_text()


@pytest.mark.parametrize("there", ["a folder", "another's", "a file"])
def test_what_is_not_ours_stays(tiny: Tiny, tmp_path: Path, there: str) -> None:
    taken = tmp_path / "shop"
    if there == "a file":
        taken.write_text("mine")
    else:
        taken.mkdir()
        (taken / "notes.txt").write_text("mine")
    if there == "another's":
        (taken / "config.pbtxt").write_text('name: "shop" backend: "onnxruntime"')
    before = files(tmp_path)
    with pytest.raises(SpecBeamError, match="SpecBeam did not write it"):
        packaged(tiny, tmp_path, overwrite=True)
    assert files(tmp_path) == before


def test_what_cannot_be_served_is_not_written(tiny: Tiny, tmp_path: Path) -> None:
    for settings in (TritonSettings(engine="no-such-engine"), TritonSettings(drafter="retrieval")):
        with pytest.raises(SpecBeamError):
            packaged(tiny, tmp_path / "repository", settings=settings)
    with pytest.raises(OptionError, match="cannot name a model"):
        packaged(tiny, tmp_path / "repository", name="../shop")
    assert not (tmp_path / "repository" / "shop").exists()


def test_a_gpu_s_instances() -> None:
    assert "count: 3 kind: KIND_GPU" in config_text("shop", PLAIN, instances=3, kind="KIND_GPU")


def test_the_recipe_says_what_it_wants(tiny: Tiny, tmp_path: Path) -> None:
    packaged(tiny, tmp_path)
    script = tmp_path / "shop" / "environment" / "make.sh"
    for given in ([], ["no-such.whl"]):
        done = subprocess.run(["bash", str(script), *given], capture_output=True, text=True)
        assert done.returncode == 2
        assert "usage: bash make.sh SPECBEAM-WHEEL" in done.stderr
    (script.parent / "venv").mkdir()
    (script.parent / "venv" / "mine").touch()
    done = subprocess.run(["bash", str(script), str(script)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "is there already" in done.stderr
    assert (script.parent / "venv" / "mine").exists()


def test_the_options_of_the_command_line(tiny: Tiny, tmp_path: Path) -> None:
    options = [
        "--engine", ENGINE, "--policy", "in-flight", "--queue", "9", "--verify", "sampled", "--drafter", "model",
        "--draft-width", "5", "--max-items", "7", "--timeout-ms", "900", "--unknown-items", "reject",
        "--instances", "2",
    ]  # fmt: skip
    done = CliRunner().invoke(main, ["package-triton", str(tiny.bundle), "-o", str(tmp_path), *options])
    assert done.exit_code == 0, done.output
    config = tmp_path / "bundle" / "config.pbtxt"
    assert "count: 2" in config.read_text()
    assert read_settings(parameter(config)) == TritonSettings(
        engine=ENGINE, policy="in-flight", queue=9, mode="sampled", drafter="model", draft_width=5, max_items=7,
        timeout_ms=900, batch_size=8, unknown_items="reject",
    )  # fmt: skip
