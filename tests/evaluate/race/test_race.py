"""Contestants in turns: all find the same, who does not is found, and stored ratios are checked."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from scripted_recommender import make
from scripted_search import random_catalog
from specbeam.catalog.errors import HistoryError, OptionError
from specbeam.evaluate import speed
from specbeam.evaluate.race import CONTESTANTS, RaceSettings, check_again, race
from specbeam.evaluate.race.check import read_race
from specbeam.evaluate.race.figures import PARTS, Race
from specbeam.evaluate.race.racers import LoopRacer, Racer, Ranked, Spent
from specbeam.evaluate.race.run import run_cells
from specbeam.evaluate.race.table import compared
from specbeam.runtime.metrics import FEWEST
from specbeam.runtime.types import Request
from tiny_bundle import Tiny

HISTORIES = [(f"u{i}", [str(j) for j in range(i, i + 1 + i % 4)]) for i in range(7)]


@pytest.fixture(scope="module")
def raced(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Race:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "PAUSE", 0)
        settings = RaceSettings(top_k=(3, 12), batches=(1, 3), rounds=3, oracle=True, threads=1)
        return race(tiny.bundle, [("lost", ["nowhere"]), *HISTORIES], settings)


def test_all_that_there_is_takes_part_and_finds_the_same(raced: Race) -> None:
    here = ["generate", "generate-arrays", "beams", "plain", "model", "auto", "floor"]
    assert [lane.name for lane in raced.lanes] == here * 4
    assert [(lane.k, lane.batch) for lane in raced.lanes[::7]] == [(3, 1), (3, 3), (12, 1), (12, 3)]
    assert raced.requests == 7
    assert raced.differing == 0
    checked = {lane.name: lane.checked for lane in raced.lanes if lane.batch == 3}
    assert checked == {**dict.fromkeys(here, 9), "plain": 0, "floor": 0}
    assert any("1 histories are left out" in note for note in raced.notes)
    assert any("retrieval takes no part: there is no pool" in note for note in raced.notes)


def test_counts_and_times_are_told_of_everybody(raced: Race) -> None:
    for lane in raced.lanes:
        parts = lane.work.milliseconds
        assert list(parts) == list(PARTS)
        assert parts["prompt"] > 0
        assert min(parts.values()) >= -1e-6
        assert lane.latency.median <= lane.latency.p95 <= lane.latency.p99
        assert lane.work.target_calls >= 1
        assert (lane.work.draft_calls > 0) == (lane.name == "model")
        assert (lane.over_floor is None) == (lane.name == "floor")
        assert set(lane.speedup) == {"plain", "generate", "floor"} - {lane.name}
    plain, floor = (next(lane for lane in raced.lanes if lane.name == name) for name in ("plain", "floor"))
    assert (plain.work.target_calls, plain.work.nodes) == (floor.work.target_calls, floor.work.nodes)


def test_it_is_the_same_from_json(raced: Race, tmp_path: Path) -> None:
    file = tmp_path / "race.json"
    file.write_bytes(msgspec.json.encode(raced))
    assert read_race(file) == raced
    assert raced.settings.contestants is None


class Liar(LoopRacer):  # type: ignore[misc]
    """Its second list is the wrong way round."""

    def lists(self, answer: object, k: int) -> list[Ranked]:
        lists = super().lists(answer, k)
        return [lists[0], lists[1][::-1]]

    def ready(self, groups: Sequence[Sequence[Request]], k: int) -> Racer:
        return self


def test_a_contestant_with_other_lists_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "PAUSE", 0)
    recommender = make(random_catalog(np.random.default_rng(0), 50, 3, 5), batch_size=2)
    requests = [recommender.encode([f"i{i}"]) for i in range(6)]
    settings = RaceSettings(top_k=(4,), batches=(2,), rounds=3)
    racers = {"beams": Liar(recommender), "plain": LoopRacer(recommender), "auto": LoopRacer(recommender)}
    lanes, _ = run_cells(racers, requests, settings, lambda what, done, total: None)
    found = {lane.name: (lane.checked, lane.differing) for lane in lanes}
    assert found == {"beams": (6, 3), "plain": (0, 0), "auto": (6, 0)}
    assert "rank 1" in (lanes[0].fault or "")


def doctored(raced: Race, factor: float) -> Race:
    """As if the first contestant at K 12 had been so many times as fast as plain."""
    lanes = []
    for lane in raced.lanes:
        if (lane.name, lane.k, lane.batch) == ("beams", 12, 3):
            old = lane.speedup["plain"]
            new = replace(old, value=old.value * factor, low=old.low * factor, high=old.high * factor)
            lane = replace(lane, speedup={**lane.speedup, "plain": new})
        lanes.append(lane)
    return replace(raced, lanes=tuple(lanes))


def long(race: Race) -> Race:
    """As if every contestant had had turns enough for an interval."""
    return replace(race, lanes=tuple(replace(lane, turns=FEWEST) for lane in race.lanes))


def test_few_turns_say_nothing(raced: Race) -> None:
    check = check_again(doctored(raced, 1e4), raced)
    assert (check.few, check.moved) == (check.ratios, ())
    assert f"{check.few} say nothing" in compared(check)


def test_what_is_not_as_it_was_is_told(raced: Race) -> None:
    setup = replace(raced.setup, sha256="0" * 64, threads=2, load=9.0, bundle="elsewhere")
    check = check_again(raced, replace(raced, setup=setup, requests=6))
    assert check.differing[1:] == ("threads: 1 then, 2 now", "requests: 7 then, 6 now")
    assert check.differing[0].startswith("sha256: ")
    assert "Not as it was: threads: 1 then, 2 now" in compared(check)


@pytest.mark.parametrize("factor", [1e4, 1e-4])
def test_a_ratio_that_moved_is_found(raced: Race, factor: float) -> None:
    raced = long(raced)
    same = check_again(raced, raced)
    assert (same.few, same.differing) == (0, ())
    assert (same.moved, same.missing) == ((), ())
    assert same.ratios == sum(len(lane.speedup) for lane in raced.lanes)
    (moved,) = check_again(doctored(raced, factor), raced).moved
    assert (moved.name, moved.k, moved.batch, moved.base) == ("beams", 12, 3, "plain")
    assert (moved.then.value > moved.now.value) == (factor > 1)


def test_what_is_not_measured_again_is_told(raced: Race) -> None:
    fewer = replace(raced, lanes=tuple(lane for lane in raced.lanes if lane.name != "model"))
    result = check_again(raced, fewer)
    assert len(result.missing) == 4 * 3
    assert result.missing[0] == "model, K 3, batch 1, over plain"
    with pytest.raises(OptionError, match="no ratio in common"):
        check_again(raced, replace(raced, lanes=()))


def test_the_slow_take_fewer_turns_spread_over_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "PAUSE", 0)
    now, served = [0.0], list[tuple[str, int]]()
    monkeypatch.setattr(speed, "perf_counter", lambda: now[0])

    def contestant(name: str, seconds: float) -> speed.Contestant[int]:
        def serve(group: int) -> str:
            served.append((name, group))
            now[0] += seconds
            return f"{name} {group}"

        return serve

    paces = {"slow": 5.0, "slower": 99.0, "quick": 1.0}
    contestants = {name: contestant(name, seconds) for name, seconds in paces.items()}
    seconds, answers = speed.take_turns(contestants, range(10), share=25.0)
    assert np.flatnonzero(~np.isnan(seconds["slow"])).tolist() == [0, 2, 4, 6, 8]
    assert (~np.isnan(seconds["slower"])).sum() == speed.FEWEST_TURNS
    assert seconds["quick"].tolist() == [1.0] * 10
    assert answers["slow"][:3] == ["slow 0", None, "slow 2"]
    assert len([name for name, _ in served if name == "slow"]) == 1 + 5  # one warm-up


def test_what_cannot_be_measured_is_refused(tiny: Tiny) -> None:
    for wrong, message in (
        ({"top_k": ()}, "at least one"),
        ({"batches": (8, 8)}, "each once"),
        ({"contestants": ("plain", "plain")}, "each once"),
        ({"contestants": ("fastest",)}, "contestants"),
        ({"rounds": 0}, "rounds is 0"),
        ({"seconds": 0.0}, "more than 0"),
        ({"seconds": float("nan")}, "more than 0"),
    ):
        with pytest.raises(OptionError, match=message):
            RaceSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="both cannot take part: there is no pool"):
        race(tiny.bundle, HISTORIES, RaceSettings(contestants=("plain", "both"), threads=1))
    with pytest.raises(HistoryError, match="none of 1 histories"):
        race(tiny.bundle, [(None, ["nowhere"])], RaceSettings(contestants=("plain",), threads=1))
    assert set(CONTESTANTS) > {"generate", "beams", "plain", "auto"}


def test_what_was_spent_adds_up() -> None:
    assert Spent(1, 0, 2, 1.0, 2.0, 0.5, 0.25, 5.0).selection == 1.25
