"""bench: what it measures, writes, draws, checks and refuses."""

from pathlib import Path

import msgspec
import pytest

from commands import bad, good, lines, only, run, write
from specbeam.evaluate import speed
from specbeam.evaluate.race.figures import Race
from specbeam.evaluate.race.racers import BeamRacer, Ranked
from specbeam.runtime.metrics import FEWEST
from tiny_bundle import Tiny

QUICK = ("-k", "2,5", "--batches", 3, "--rounds", 3, "--threads", 1)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "PAUSE", 0)


def test_it_measures_writes_draws_and_checks(tiny: Tiny, histories: Path, tmp_path: Path) -> None:
    output, plot = tmp_path / "bench.json", tmp_path / "bench.svg"
    told = good(
        "bench", tiny.bundle, histories, *QUICK, "--rounds", FEWEST, "--contestants", "beams,plain", "--contestants",
        "auto", "--oracle", "--users", 4, "-o", output, "--plot", plot,
    ).stdout  # fmt: skip
    found = msgspec.json.decode(output.read_bytes(), type=Race)
    assert [(lane.name, lane.k) for lane in found.lanes] == [
        (name, k) for k in (2, 5) for name in ("beams", "plain", "auto", "floor")
    ]
    assert (found.requests, found.sources.histories) == (4, (str(histories),))
    for said in ("x plain", "users/s", "planning", "(floor)", "72 of 72 lists are those of the plain loop"):
        assert said in told
    drawn = plot.read_text("utf-8")
    for said in ("Users a second (batch 3)", "Milliseconds a batch, median to p95 (K = 5)", "selection", "auto"):
        assert said in drawn
    again = run("bench", "--check", output)
    assert f"of {sum(len(lane.speedup) for lane in found.lanes)} stored ratios" in again.stdout
    content = msgspec.json.decode(output.read_bytes())
    content["lanes"][0]["speedup"]["plain"] = {"value": 9e5, "low": 8e5, "high": 1e6}
    output.write_bytes(msgspec.json.encode(content))
    moved = run("bench", tiny.bundle, histories, "--check", output)
    assert moved.exit_code == 1
    assert "MOVED: beams, K 2, batch 3, over plain: 900000.00 [800000.00, 1000000.00] stored" in moved.stdout
    assert "ratios moved" in moved.stderr


def test_other_lists_are_an_error(tiny: Tiny, histories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def backwards(self: BeamRacer, answer: list[list[tuple[int, float]]], k: int) -> list[Ranked]:
        return [each[::-1] for each in answer]

    monkeypatch.setattr(BeamRacer, "lists", backwards)
    output = tmp_path / "bench.json"
    result = run("bench", tiny.bundle, histories, *QUICK, "--contestants", "plain,beams", "-o", output)
    assert result.exit_code == 1
    assert "DIFFERENT: beams, K 2, batch 3: 9 of 9; the first: rank 1" in result.stdout
    assert "18 lists are not what they must be" in result.stderr
    assert output.is_file()


def test_a_pool_brings_its_drafters(tiny: Tiny, histories: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    good("build-pool", "--items", histories, "--output", pool)
    asked = ("--contestants", "plain,model,retrieval,both", "--pool", pool, "--draft-width", 3, "--draft-length", 2)
    output = tmp_path / "bench.json"
    good("bench", tiny.bundle, histories, *QUICK, *asked, "-o", output)
    found = msgspec.json.decode(output.read_bytes(), type=Race)
    assert (found.settings.shape.width, found.settings.pool) == (3, str(pool))
    by_name = {lane.name: lane for lane in found.lanes if lane.k == 5}
    drafting = {name: lane.work.milliseconds["draft"] > 0 for name, lane in by_name.items()}
    assert drafting == {"plain": False, "model": True, "retrieval": True, "both": True}
    assert [by_name[name].work.draft_calls > 0 for name in ("model", "retrieval", "both")] == [True, False, True]
    assert {lane.differing for lane in found.lanes} == {0}


def test_what_cannot_be_done_is_refused(tiny: Tiny, histories: Path, tmp_path: Path) -> None:
    assert "got the contestant 'fastest'; expected some of generate," in bad(
        "bench", tiny.bundle, histories, "--contestants", "plain,fastest"
    )
    assert "retrieval cannot take part: there is no pool" in bad(
        "bench", tiny.bundle, histories, "--contestants", "retrieval"
    )
    assert "at most 200 items" in bad("bench", tiny.bundle, histories, "-k", 201)
    assert "got the suffix '.gif'" in bad("bench", tiny.bundle, histories, "--plot", tmp_path / "x.gif")
    for option, value in (("-k", "5,none"), ("-k", "0"), ("--batches", "-1"), ("--batches", "")):
        refused = run("bench", tiny.bundle, histories, option, value)
        assert refused.exit_code == 2
        assert "expected whole numbers from 1 on" in " ".join(refused.stderr.split())
    missing = run("bench", tiny.bundle)
    assert missing.exit_code == 2
    assert "expected BUNDLE and HISTORIES, or --check STORED" in missing.stderr
    only(tmp_path / "x.gif")


def test_what_is_no_result_is_refused(tiny: Tiny, histories: Path, tmp_path: Path) -> None:
    stored = tmp_path / "stored.json"
    assert "is no result to check against: No such file" in bad("bench", "--check", stored)
    write(stored, {"schema": 1})
    assert "is no result to check against" in bad("bench", "--check", stored)
    good("bench", tiny.bundle, histories, *QUICK, "--contestants", "plain", "-o", stored, "--overwrite")
    assert "leave all other settings out" in bad("bench", "--check", stored, "-k", 5)
    assert "no ratio in common" in bad("bench", "--check", stored)
    (content,) = lines(write(tmp_path / "one.jsonl", msgspec.json.decode(stored.read_bytes())))
    write(stored, content | {"schema": 99})
    assert "has the schema 99, expected 1" in bad("bench", "--check", stored)
