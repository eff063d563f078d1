"""A bundle's default engine, which serves where none is named; and what --overwrite costs."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import specbeam.engines.side_by_side as beside_module
from commands import bad, good, lines, run
from specbeam.catalog.errors import BundleError
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.default import default_engine, found_default, set_default
from specbeam.engines.bundle.inspect import describe, describe_json
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.registry import chosen_engine
from specbeam.engines.side_by_side import Beside, beside
from specbeam.evaluate.tune import tune
from specbeam.runtime import EngineChoice, Recommender
from specbeam.verbs.overwrite import losses
from tiny_bundle import ENGINE

OTHER = "onnxruntime-cpu-fp16"
RECORD = "engines/default.json"
HISTORIES = [["1", "2"], ["3"], ["4", "5", "6"]]


@pytest.fixture
def two(bundle: Path) -> Path:
    """A bundle with an engine beside the first one (a copy by another name: quick, and as good to tell apart)."""
    shutil.copytree(bundle / "engines" / ENGINE, bundle / "engines" / OTHER)
    return bundle


def recorded(bundle: Path) -> Any:
    return json.loads((bundle / RECORD).read_text())["engine"]


def test_the_first_engine_is_on_record(bundle: Path) -> None:
    assert recorded(bundle) == default_engine(Bundle.open(bundle)) == ENGINE


def test_a_second_engine_changes_nothing_for_those_who_name_none(
    bundle: Path, histories: Path, output: Path, tmp_path: Path
) -> None:
    before = good("infer", bundle, histories, "--output", output, "--threads", 1) and lines(output)
    told = good("build-engine", bundle, "--precision", "fp16", "--threads", 1).stdout
    assert f"{OTHER}: " in told
    assert f" times the speed of the default {ENGINE}: " in told
    assert "(timed now, in turns)" in told
    assert f"Without --engine, {ENGINE} goes on serving. To change that: specbeam build-engine {bundle} " in told
    assert recorded(bundle) == ENGINE
    good("infer", bundle, histories, "--output", output, "--threads", 1, "--overwrite")
    assert lines(output) == before
    good("explain", bundle, "--history", "1,2", "-o", tmp_path / "tree.html", "--threads", 1)
    good("tune", bundle, histories, "-k", 1, "--limit", 2, "--threads", 1)
    assert [*(bundle / "engines" / ENGINE).glob("tuning-*")]
    assert Recommender.open(bundle, engine=EngineChoice(threads=1)).recommend([["1"]], 2)
    # and to change it, what was printed
    command = told.split("To change that: specbeam ")[1].splitlines()[0].split()
    said = good(*command).stdout
    assert said == f"{OTHER} is the default engine of {bundle} from now on (until now: {ENGINE}).\n"
    assert recorded(bundle) == OTHER
    assert f"engine     {OTHER}, the default (" in describe(bundle)
    assert json.loads(describe_json(bundle))["default_engine"] == OTHER


def test_an_older_bundle_keeps_the_engine_that_was_its_only_one(bundle: Path) -> None:
    (bundle / RECORD).unlink()
    build_engine(bundle, precision="fp16", threads=1)
    assert recorded(bundle) == ENGINE


def test_a_build_that_fails_leaves_the_default_as_it_was(bundle: Path) -> None:
    (bundle / RECORD).unlink()
    assert "exists already" in bad("build-engine", bundle)
    assert found_default(Bundle.open(bundle)) == ENGINE


def test_a_build_can_make_its_engine_the_default_and_rebuilding_keeps_it(bundle: Path) -> None:
    told = good("build-engine", bundle, "--precision", "fp16", "--threads", 1, "--default").stdout
    assert f"Without --engine, {OTHER} serves from now on, in place of {ENGINE}." in told
    assert recorded(bundle) == OTHER
    good("build-engine", bundle, "--threads", 1, "--overwrite")
    assert recorded(bundle) == OTHER
    build_engine(bundle, threads=1, overwrite=True, default=True)
    assert recorded(bundle) == ENGINE


def test_the_only_engine_serves_whatever_is_on_record(two: Path) -> None:
    opened = Bundle.open(two)
    shutil.rmtree(two / "engines" / ENGINE)
    assert default_engine(opened) == OTHER
    (two / RECORD).write_text("{")
    assert default_engine(opened) == OTHER
    (two / RECORD).unlink()
    assert default_engine(opened) == OTHER


def test_several_engines_without_a_default_are_told_of(two: Path) -> None:
    opened, third = Bundle.open(two), two / "engines" / "onnxruntime-cpu-bf16"
    (two / RECORD).unlink()
    remedy = f"specbeam build-engine {two} --backend onnxruntime --device cpu --precision fp16 --default"
    with pytest.raises(
        BundleError, match=f"several engines, and none is on record as its default: {OTHER}, {ENGINE}.*"
    ):
        Recommender.open(two)
    message = bad("explain", two, "--history", "1", "-o", two / "tree.svg")
    assert remedy in message
    assert "--engine NAME" in message
    assert "default    none of them" in describe(two)
    assert json.loads(describe_json(two))["default_engine"] is None
    good(*remedy.split()[1:])  # as printed
    assert default_engine(opened) == OTHER
    shutil.move(two / "engines" / OTHER, third)
    with pytest.raises(
        BundleError, match=f"{OTHER}, which is gone, is on record as its default: onnxruntime-cpu-bf16, "
    ):
        default_engine(opened)


def test_an_engine_may_be_chosen_by_its_device(two: Path) -> None:
    """The default where it is on that device, else the only one there; several or none are told of."""
    opened, elsewhere = Bundle.open(two), two / "engines" / "onnxruntime-cuda-fp16"
    assert chosen_engine(opened, None, "cpu") == default_engine(opened)
    with pytest.raises(BundleError, match=r"none of its engines \(.*\) are on the device 'cuda'; expected one that is"):
        chosen_engine(opened, None, "cuda")
    shutil.copytree(two / "engines" / ENGINE, elsewhere)
    assert chosen_engine(opened, None, "cuda") == elsewhere.name
    set_default(opened, elsewhere.name)
    with pytest.raises(BundleError, match=r"2 of its engines .* are on the device 'cpu'"):
        chosen_engine(opened, None, "cpu")
    assert chosen_engine(opened, ENGINE, "cpu") == ENGINE
    with pytest.raises(BundleError, match=f"{ENGINE} is not on the device 'cuda'"):
        Recommender.open(two, engine=EngineChoice(ENGINE, device="cuda"))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"schema_version": 9}', b'{"schema_version": 1, "engine": 3}', b"\xff"]
)
def test_a_damaged_record_names_the_command_that_writes_it_again(two: Path, content: bytes) -> None:
    (two / RECORD).write_bytes(content)
    with pytest.raises(BundleError, match=r"default\.json .*rite it again.* with: specbeam build-engine .* --default"):
        default_engine(Bundle.open(two))
    assert Recommender.open(two, engine=EngineChoice(ENGINE, threads=1)).recommend([["1"]], 1)
    set_default(Bundle.open(two), ENGINE)
    assert default_engine(Bundle.open(two)) == ENGINE


def test_only_an_engine_that_is_there_becomes_the_default(bundle: Path) -> None:
    with pytest.raises(BundleError, match="has no engine 'onnxruntime-cpu-bf16'"):
        set_default(Bundle.open(bundle), "onnxruntime-cpu-bf16")
    assert recorded(bundle) == ENGINE


def test_tune_learns_about_the_default(two: Path) -> None:
    path, _ = tune(two, HISTORIES, top_k=(1,), engine=EngineChoice(threads=1))
    assert path.parent.name == ENGINE


# --- how fast it is beside the default


def test_an_engine_beside_its_copy_is_as_fast(two: Path) -> None:
    found = beside(Bundle.open(two), OTHER, ENGINE, threads=1)
    assert found is not None
    assert found.now
    assert 0.3 < found.speed < 3  # the machine may be busy
    assert {shape[0] for shape in found.milliseconds} == {1, 8}


def test_records_stand_for_what_is_not_timed(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Bundle.open(two)
    facts = {name: opened.engine_facts(name).roles["target"].latency for name in (OTHER, ENGINE)}
    monkeypatch.setattr(beside_module, "SLOWEST_MS", 0)
    found = beside(opened, OTHER, ENGINE, threads=1)
    assert found is not None
    assert not found.now
    assert "as measured when each was built" in found.described()
    for (batch, past, new), both in found.milliseconds.items():
        for name, milliseconds in zip((OTHER, ENGINE), both, strict=True):
            points = {(p.batch, p.past, p.new): p.milliseconds for p in facts[name]}
            assert points[batch, past, new] == milliseconds


@pytest.mark.parametrize(
    ("times", "verdict"), [((2.0, 4.0), "2.00 times .*: faster here"), ((4.0, 2.0), "0.50 times .*: slower here"),
                           ((2.0, 2.04), "1.02 times .*: no difference")]
)  # fmt: skip
def test_the_verdict(times: tuple[float, float], verdict: str) -> None:
    assert re.search(verdict, Beside("a", "b", {(1, 0, 80): times, (8, 80, 40): times}, now=True).described())


# --- what --overwrite costs


def test_what_overwriting_a_bundle_throws_away_is_said_before(two: Path, tiny: Any) -> None:
    (two / "engines" / ENGINE / "tuning-strict-full.json").write_text("{}")
    (two / "thesis.txt").write_text("precious")
    expected = [f"engine {OTHER}", f"engine {ENGINE}", f"tuning of {ENGINE} (strict-full)", "thesis.txt"]
    assert losses(two, "manifest.json") == expected
    result = run("export", "--target", two / "missing", "--catalog", tiny.index, "-o", two, "--overwrite")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"--overwrite replaces {two}; lost with it: {', '.join(expected)}\n")
    assert (two / "thesis.txt").read_text() == "precious"
    assert "lost with it" not in run("export", "--target", two / "no", "--catalog", tiny.index, "-o", two).stderr


def test_what_overwriting_an_engine_throws_away_is_said_before(bundle: Path) -> None:
    folder = bundle / "engines" / ENGINE
    assert losses(folder, "engine.json") == []
    (folder / "tuning-strict-full-retrieval.json").write_text("{}")
    result = good("build-engine", bundle, "--threads", 1, "--overwrite")
    assert result.stderr.startswith(f"--overwrite replaces {folder}; lost with it: tuning (strict-full-retrieval)\n")
    assert losses(folder, "engine.json") == []


def test_files_of_other_people_in_a_pool_or_a_checkpoint_are_named(tmp_path: Path) -> None:
    for name in ("pool.json", "ids.npy", "notes.npy.bak", "mine/x.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert losses(tmp_path, "pool.json") == ["mine/x.npy", "notes.npy.bak"]
    for name in ("training.json", "model.safetensors", "events/events.out", "mine/notes.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert losses(tmp_path, "training.json") == ["ids.npy", "mine/notes.json", "mine/x.npy", "notes.npy.bak"]
