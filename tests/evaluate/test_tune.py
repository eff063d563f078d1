"""`specbeam tune`: what it measures, where it is kept, and who reads it."""

import json
from pathlib import Path

import pytest

from commands import bad, good, run
from specbeam.catalog.errors import BundleError, HistoryError, OptionError
from specbeam.engines.bundle.items import Bundle
from specbeam.evaluate.tune import tune, verdict
from specbeam.runtime import Drafting, DraftShape, EngineChoice, Recommender, Verification
from specbeam.runtime.planning.planner import Expected, Planner
from specbeam.runtime.planning.plans import NOTHING
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.planning.tuning_file import UNTUNED, tuning_file
from tiny_bundle import ENGINE, edit_engine

HISTORIES = [[str(i), str((7 * i) % 40)] for i in range(24)]


@pytest.fixture
def tuned(bundle: Path) -> Path:
    tune(bundle, HISTORIES, top_k=[3, 10], engine=EngineChoice(threads=1))
    return bundle


def test_what_is_measured(bundle: Path) -> None:
    told: list[tuple[str, int, int]] = []
    path, tuning = tune(
        bundle,
        [*HISTORIES, ["unknown"]],
        top_k=[3, 10],
        progress=lambda *step: told.append(step),
        engine=EngineChoice(threads=1),
    )
    assert path == tuning_file(Bundle.open(bundle), ENGINE, "strict", "full")
    assert (tuning.users, tuning.mode, tuning.scoring, tuning.threads) == (24, "strict", "full", 1)
    assert set(tuning.fits) == {"target", "draft"}
    assert all(fit.scale > 0 and fit.host_call_ms >= 0 for fit in tuning.fits.values())
    widths = {width.k: width for width in tuning.acceptance.widths}
    assert set(widths) == {3, 10}
    for width in widths.values():
        # every request is drafted for from every depth, once each
        starts = {(level.start, level.level) for level in width.levels}
        assert starts == {(0, 1), (0, 2), (1, 1)}
        first = next(level for level in width.levels if (level.start, level.level) == (0, 1))
        assert first.trials[0] == 24
    assert told[-1][1] == told[-1][2]
    assert {what for what, _, _ in told} == {"acceptance", "cost of calls"}


def test_what_was_tuned_is_planned_by(tuned: Path) -> None:
    recommender = Recommender.open(tuned, engine=EngineChoice(threads=1))
    assert isinstance(recommender.planning, Planner)
    assert recommender.planning.acceptance.requests(10) >= 24
    assert recommender.planning.target.scale != 1
    answers = recommender.recommend(HISTORIES, 10)
    plain = Recommender.open(tuned, engine=EngineChoice(threads=1), drafting="none").recommend(HISTORIES, 10)
    assert [[item.item for item in a.items] for a in answers] == [[item.item for item in p.items] for p in plain]


def test_what_is_tuned_for_one_mode_serves_its_costs_to_others(tuned: Path) -> None:
    strict, other = (
        Recommender.open(tuned, verification=verification, engine=EngineChoice(threads=1)).planning
        for verification in (Verification(), Verification("sampled"))
    )
    assert isinstance(strict, Planner)
    assert isinstance(other, Planner)
    assert other.target == strict.target
    assert other.acceptance.requests(10) == 0
    tune(tuned, HISTORIES, top_k=[10], verification=Verification("sampled"), engine=EngineChoice(threads=1))
    again = Recommender.open(tuned, verification=Verification("sampled"), engine=EngineChoice(threads=1)).planning
    assert isinstance(again, Planner)
    assert again.acceptance.requests(10) >= 24


def test_an_engine_that_was_never_tuned_is_planned_for_by_its_latency(bundle: Path) -> None:
    planning = Recommender.open(bundle, engine=EngineChoice(threads=1)).planning
    assert isinstance(planning, Planner)
    assert planning.target.host_call_ms == UNTUNED.host_call_ms
    assert planning.acceptance.requests(10) == 0


def test_files_that_cannot_be_trusted(tuned: Path) -> None:
    path = tuning_file(Bundle.open(tuned), ENGINE, "strict", "full")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"users": 24', b'"users": 25'))
    with pytest.raises(BundleError, match="specbeam tune"):
        Recommender.open(tuned, engine=EngineChoice(threads=1))
    path.write_bytes(whole)

    def other_graph(engine: dict[str, object]) -> None:
        engine["roles"]["draft"]["source_sha256"] = "0" * 64  # type: ignore[index]

    edit_engine(tuned, other_graph)  # of another pair: not an error, but nothing to go by
    assert json.loads(path.read_bytes())["graphs"]["draft"] != "0" * 64
    planning = Recommender.open(tuned, engine=EngineChoice(threads=1), drafting="none").planning
    assert isinstance(planning, FixedPlanning)


def test_what_cannot_be_tuned(bundle: Path) -> None:
    with pytest.raises(OptionError, match="nothing to tune"):
        tune(bundle, HISTORIES, verification=Verification("relaxed"))
    with pytest.raises(HistoryError, match="None of 1 histories"):
        tune(bundle, [["unknown"]], engine=EngineChoice(threads=1))
    assert not tuning_file(Bundle.open(bundle), ENGINE, "strict", "full").exists()


def test_what_was_asked_for_decides_the_planning(bundle: Path) -> None:
    def planning(engine: str | None = None, **options: object) -> object:
        return Recommender.open(bundle, engine=EngineChoice(engine, threads=1), **options).planning  # type: ignore[arg-type]

    fixed = planning(drafting=Drafting(speculation="fixed"))
    assert isinstance(fixed, FixedPlanning)
    assert fixed.shape == DraftShape()
    by_hand = planning(drafting=Drafting(shape=DraftShape(7, 2)))
    assert isinstance(by_hand, FixedPlanning)
    assert by_hand.shape == DraftShape(7, 2)
    assert isinstance(planning(verification=Verification("relaxed")), FixedPlanning)
    assert isinstance(planning(verification=Verification("tolerant", slack=0.1)), FixedPlanning)
    assert isinstance(planning(engine="torch-cpu-fp32"), FixedPlanning)
    nothing = planning(drafting="none")
    assert isinstance(nothing, FixedPlanning)
    assert nothing.shape is None
    with pytest.raises(OptionError, match="no measured latency"):
        planning(engine="torch-cpu-fp32", drafting=Drafting(speculation="auto"))


def test_the_verb(bundle: Path, tmp_path: Path) -> None:
    histories = tmp_path / "histories.jsonl"
    histories.write_text("".join(json.dumps({"user": str(i), "items": h}) + "\n" for i, h in enumerate(HISTORIES)))
    shown = good("tune", bundle, histories, "--top-k", 3, "--threads", 1).output
    assert "24 requests, strict verification, full scoring" in shown
    assert "Expected ms from each depth on: batch 8" in shown
    for batch in (1, 8):
        assert f"At batch {batch}, on these histories, drafting " in shown
    assert "(K = 3)" in shown.splitlines()[-1]
    refused = run("tune", bundle, histories, "--verify", "relaxed")
    assert refused.exit_code == 2
    assert "'strict', 'sampled'" in refused.stderr
    assert "temperature" in bad("tune", bundle, histories, "--temperature", 0.5)


def test_the_verdict_is_what_the_planner_will_do(tuned: Path) -> None:
    planner = Recommender.open(tuned, engine=EngineChoice(threads=1)).planning
    assert isinstance(planner, Planner)
    for batch, k in ((1, 3), (8, 10)):
        found = planner.expected(batch, 16, k)
        policy = planner.policy(batch, 16, k)
        assert bool(found.drafted) == any(plan.widths for plan in policy)
        assert found.enumerated == any(plan.enumerate for plan in policy)
        assert found.milliseconds <= found.plain
        assert (found.milliseconds < found.plain) == any(map(any, policy))


def test_verdicts() -> None:
    idle, drafts = Expected(0.0, False, 5.0, 5.0), Expected(84.6, False, 3.91, 5.2)
    assert verdict(8, {1: idle, 5: idle}) == (
        "At batch 8, on these histories, drafting does not pay: auto will draft nothing (K = 1, 5)."
    )
    assert verdict(8, {20: drafts}) == (
        "At batch 8, on these histories, drafting pays: auto will draft about 85 nodes a request and take 3.91 instead "
        "of 5.20 ms for it (K = 20)."
    )
    assert "pays for 1 of 2 K: auto will draft about 85" in verdict(1, {1: idle, 20: drafts})
    every = Expected(0.0, True, 0.62, 0.82)
    assert verdict(1, {10: every}) == (
        "At batch 1, on these histories, drafting does not pay, evaluating every continuation of a depth ahead does: "
        "auto will evaluate ahead and take 0.62 instead of 0.82 ms a request (K = 10)."
    )
    assert "drafting pays for 1 of 3 K, evaluating every continuation of a depth ahead does for 1 of 3 K: " in verdict(
        1, {1: idle, 10: every, 20: drafts}
    )


def test_tuning_is_recommended_until_it_is_done(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    histories, nothing = tmp_path / "histories.jsonl", (NOTHING,) * 3
    histories.write_text("".join(json.dumps({"user": str(i), "items": h}) + "\n" for i, h in enumerate(HISTORIES)))
    monkeypatch.setattr(Planner, "policy", lambda self, batch, prompt, width: nothing)
    infer = ("infer", bundle, histories, "-o", tmp_path / "recs.jsonl", "--overwrite", "--threads", 1)
    assert "by the engine's latency (`specbeam tune` measures it), it does not pay here" in good(*infer).output
    tune(bundle, HISTORIES, top_k=[3], engine=EngineChoice(threads=1))
    told = good(*infer).output
    assert "auto drafted nothing: as tuned, it does not pay here" in told
    assert "specbeam tune" not in told


def test_where_nothing_can_be_kept_nothing_is_measured(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specbeam.evaluate.tune.os.access", lambda path, mode: False)
    with pytest.raises(OptionError, match="cannot be written to"):
        tune(bundle, HISTORIES, progress=lambda *step: pytest.fail("began to work"), engine=EngineChoice(threads=1))


def test_lines_that_are_no_requests_are_counted(bundle: Path, tmp_path: Path) -> None:
    histories = tmp_path / "histories.jsonl"
    histories.write_text('{"user": "u", "items": ["1"]}\nnonsense\n')
    told = good("tune", bundle, histories, "--top-k", 3, "--threads", 1)
    assert "1 lines are no requests" in told.stderr
