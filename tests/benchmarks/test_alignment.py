"""The benchmark of alignment objectives: its comparisons by hand, and all its steps on a tiny pair."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.alignment import objectives as alignment
from benchmarks.alignment.objectives import held, main, runs_of
from benchmarks.alignment.report import gain, spread, tables
from benchmarks.alignment.results import Measured, Report, Result, Setup, Speed, claim, result_file, write
from specbeam.catalog.errors import SpecBeamError
from specbeam.evaluate.figures import AtK
from specbeam.runtime.metrics import Estimate
from tiny_bundle import Tiny
from tiny_models import tiny_catalog, tiny_checkpoint

SETUP = Setup(
    data="beauty", pair="pair", steps=2, batch=4, learning_rate=1e-3, windows=1, places=None, users=4, top_k=(2,)
)


def result(objective: str, seed: int, calls: tuple[int, ...], *, lists: str = "same") -> Result:
    """One draft at K = 2 that took so many target calls."""
    number = Estimate(float(np.mean(calls)), 0, 4)
    steps = Estimate(4 - number.value, 0, 4)
    at = AtK(2, number, number, None, None, 0.5, number, steps, number, number, (0.5, None, 1.0), 0, 0, None)
    modes = ("strict", "all-or-nothing", "relaxed")
    found = Measured(dict.fromkeys(modes, at), dict.fromkeys(modes, calls), lists)
    return Result(objective, seed, 4, tuple("abcd"), (found,))


def report_of(work: Path, *results: Result) -> Report:
    claim(work, SETUP)
    for each in results:
        write(result_file(work, each.name), each)
    return Report(work)


def test_gains_are_paired_by_user_and_seed(tmp_path: Path) -> None:
    report = report_of(
        tmp_path, result("sft", 0, (2, 3, 3, 4)), result("sft", 1, (4, 4, 4, 4)), result("path-kd", 0, (1, 2, 2, 3)),
        result("none", 0, (1, 1, 1, 1)),
    )  # fmt: skip
    assert list(report.runs) == ["none", "sft", "path-kd"]
    one_less = gain(report, "path-kd", "sft", 2)  # seed 1 of sft has no partner
    assert one_less.calls == Estimate(-1, -1, -1)
    assert one_less.avoidable is not None
    assert one_less.avoidable.value == pytest.approx(1 - (2 - 1) / (3 - 1))
    assert one_less.avoidable.low < 0.5 < one_less.avoidable.high
    both_seeds = gain(report, "sft", "none", 2)
    assert both_seeds.calls.value == (3 + 4) / 2 - 1
    assert both_seeds.avoidable is None  # the draft as it came left nothing to remove


def test_the_tables_say_where_lists_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of(tmp_path, result("sft", 0, (2, 2, 2, 2)), result("sft", 1, (3, 3, 3, 3), lists="another"))
    tables(report)
    told = capsys.readouterr().out
    assert "| sft | 2.50 ± 0.50 |" in told
    assert "| sft | 50.0% / - / 100.0% |" in told
    assert "16 of 16 strict lists are those of plain beam search" in told
    assert "near ties at K = 2" in told
    assert spread([2.0], 2) == "2.00"


def test_a_work_folder_holds_runs_of_one_kind(tmp_path: Path) -> None:
    claim(tmp_path, SETUP)
    claim(tmp_path, SETUP)
    with pytest.raises(SpecBeamError, match="steps 2, now 3"):
        claim(tmp_path, msgspec.structs.replace(SETUP, steps=3))
    with pytest.raises(SpecBeamError, match="no result yet"):
        Report(tmp_path)


def test_each_run_is_one_process_s(tmp_path: Path) -> None:
    assert runs_of(["none", "sft"], [3, 4]) == [("none", 3), ("sft", 3), ("sft", 4)]
    with held(tmp_path / "locks" / "run", wait=False) as first, held(tmp_path / "locks" / "run", wait=False) as second:
        assert first
        assert not second
    with held(tmp_path / "locks" / "run", wait=True) as again:
        assert again


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and a pair where the benchmarks look for them."""
    folder = tmp_path_factory.mktemp("shared")
    data, pair = folder / "data" / "beauty", folder / "models" / "beauty"
    data.mkdir(parents=True)
    tiny_catalog(data / "index.json")
    (data / "items.json").write_text(json.dumps({"0": {"title": "Title 0"}}))
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("valid", 1), ("test", 1)):
        rows = (" ".join(map(str, [user, *rng.integers(1, 41, count)])) for user in range(12))
        (data / f"sequential_{part}.txt").write_text("\n".join(rows) + "\n")
    tiny_checkpoint(pair / "target", max_position_embeddings=80)
    tiny_checkpoint(pair / "draft", max_position_embeddings=80, num_hidden_layers=1, seed=1)
    return folder


def test_all_steps(
    shared: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    monkeypatch.setenv("SPECBEAM_DATA", str(shared))

    def call(*more: str) -> str:
        options = f"--work {work} --steps 2 --batch 4 --users 6 --top-k 1 3 --seeds 0 --threads 1 --rounds 2"
        monkeypatch.setattr("sys.argv", ["alignment.py", *options.split(), *more])
        main()
        return capsys.readouterr().out

    call("--teacher-only")
    assert (work / "teacher" / "teacher.json").is_file()
    assert not (work / "drafts").exists()
    call("--objectives", "none", "sft", "path-kd")
    before = {path.name: path.stat().st_mtime_ns for path in (work / "results").iterdir()}
    assert sorted(before) == ["none-0.json", "path-kd-0.json", "sft-0.json"]
    with monkeypatch.context() as patch:  # nothing is made again
        patch.setattr(alignment, "align", None)
        call("--objectives", "none", "sft")
    assert before == {path.name: path.stat().st_mtime_ns for path in (work / "results").iterdir()}
    shutil.copytree(tiny.bundle, work / "bundles" / "sft")  # exported already; whose draft it holds is all the same
    call("--objectives", "sft", "--speed")
    speed = msgspec.json.decode((work / "speed.json").read_bytes(), type=Speed)
    assert {pace.name for pace in speed.paces} == {"sft", "sft, relaxed", "plain", "generate"}
    told = call("--report", "--picture", str(tmp_path / "picture.svg"))
    assert "72 of 72 strict lists are those of plain beam search" in told  # two rules, two K, three drafts, six users
    assert (tmp_path / "picture.svg").stat().st_size > 1000
