"""doctor: what of a machine can be used, and which engines of a bundle run on it; whatever is missing or broken."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import specbeam.engines.doctor.examine as doctor_module
from commands import good, run
from specbeam.engines.doctor import trial
from specbeam.engines.doctor.examine import examine
from specbeam.engines.doctor.health import Usable, describe
from specbeam.engines.doctor.trial import try_engine
from tiny_bundle import ENGINE, Tiny, break_rows, edit_engine

OTHER = "onnxruntime-cpu-fp16"


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
