"""Evaluation: intervals and figures by hand, turns without models, and the command on a tiny pair."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from commands import bad, good, lines, only, write
from loaded import HEAVY, loaded_by
from specbeam.catalog.errors import OptionError, SpecBeamError
from specbeam.catalog.extras import install
from specbeam.catalog.histories.dataset import Dataset, Example
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.machine.processors import busy, processor
from specbeam.evaluate import Evaluation, Settings, evaluate, speed
from specbeam.evaluate.data import HeldOut
from specbeam.evaluate.figures import Outcome, Truth, at_k, paces, same_list, told_once
from specbeam.evaluate.settings import searches_of
from specbeam.evaluate.table import described
from specbeam.runtime import Drafting, DraftShape, EngineChoice
from specbeam.runtime.metrics import coverage, estimate, median_estimate, resampled_means
from tiny_bundle import Tiny, edit_manifest


def test_an_interval_is_what_the_normal_approximation_says() -> None:
    values = np.random.default_rng(1).normal(3, 2, (400, 1))
    drawn = resampled_means(values, [str(i) for i in range(400)])
    found = estimate(values.mean(), drawn[:, 0])
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_resamples_are_paired_seeded_and_independent_of_how_many_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    users = [str(i) for i in range(30)]
    values = np.random.default_rng(1).normal(size=(30, 1))
    both = resampled_means(np.hstack([values, values + 0.5]), users)
    np.testing.assert_allclose(both[:, 1] - both[:, 0], 0.5)
    assert not np.array_equal(both, resampled_means(np.hstack([values, values + 0.5]), users, seed=1))
    monkeypatch.setattr("specbeam.runtime.metrics.CHUNK", 100)
    np.testing.assert_allclose(resampled_means(values, users)[:, 0], both[:, 0])


def test_all_rows_of_a_user_are_drawn_together() -> None:
    values = np.array([[1.0], [1.0], [1.0], [0.0]])
    drawn = resampled_means(values, ["a", "a", "a", "b"])
    assert set(np.round(drawn[:, 0], 6)) == {0, 0.75, 1}  # b twice; one of each; a twice


def test_rows_without_a_value_do_not_count() -> None:
    values = np.array([[1.0], [np.nan], [0.0]])
    drawn = resampled_means(values, ["a", "b", "c"], resamples=300)
    assert np.isnan(drawn).any()  # b three times
    found = estimate(0.5, drawn[:, 0])
    assert (found.low, found.high) == (0, 1)


def test_a_median_s_interval_is_the_sign_test_s() -> None:
    """Tables of the sign test at 5 %: from 6 values on the extremes enclose, of 9 the second ones, of 32 the tenth."""
    for count, first in ((1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (20, 5), (32, 9), (100, 39)):
        found = median_estimate(np.random.default_rng(count).permutation(count).astype(float))
        assert (found.low, found.high) == (first, count - 1 - first)
        assert found.value == (count - 1) / 2


@pytest.mark.parametrize("rounds", [6, 8, 32])
def test_identical_contestants_cover_a_ratio_of_one(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 95 % of runs at least, though the machine slows down meanwhile, has spikes, and who follows `heavy` pays."""
    monkeypatch.setattr(speed, "PAUSE", 0)
    requests, covered, runs = [[Example("u", ("1",), ("2",))]] * rounds, 0, 400
    for seed in range(runs):
        machine = Machine(10_000 + seed)
        monkeypatch.setattr(speed, "perf_counter", machine.clock)
        contestants = {name: machine.contestant(name) for name in ("same", "plain", "heavy")}
        seconds, _ = speed.take_turns(contestants, requests, seed=seed)
        ratio = paces(seconds, ("plain",), 1, 1)[0].speedup["plain"]
        covered += ratio.low <= 1 <= ratio.high
    assert covered / runs >= 0.93  # 0.95 less two standard errors


class Machine:
    """Its clock; all contestants but `heavy` are the same."""

    def __init__(self, seed: int) -> None:
        self._rng, self._now, self._before = np.random.default_rng(seed), 0.0, ""

    def clock(self) -> float:
        return self._now

    def contestant(self, name: str) -> speed.Contestant:
        def serve(group: Sequence[Example]) -> None:
            drift, spin = 1 + self._now / 100, 1.5 if self._before == "heavy" else 1.0
            spike = 4 if self._rng.random() < 0.05 else 1
            self._now += (5 if name == "heavy" else 1) * drift * spin * spike * self._rng.lognormal(0, 0.05)
            self._before = name

        return serve


def test_coverage_of_a_catalog() -> None:
    assert coverage([["a", "b"], ["b"]], 8) == 0.25


def outcome(*ranked: Sequence[str], calls: Sequence[int] = (), acceptance: float = 0.5) -> Outcome:
    scores = tuple(tuple(-float(rank) for rank in range(len(items))) for items in ranked)
    counts = np.array([(call, 1, 10) for call in calls or [2] * len(ranked)])
    return Outcome(tuple(map(tuple, ranked)), scores, counts, (acceptance, None), 3)


TRUTH = Truth(("u", "v", "w"), (frozenset("ac"), frozenset("x"), frozenset("by")), frozenset("abc"), 10, 4)
LISTS = (["a", "q"], ["q", "x"], ["q", "r"])


def test_figures_by_hand() -> None:
    at = at_k({"strict": outcome(*LISTS, calls=(1, 2, 3))}, TRUTH, 2, plain=None, strict={"strict"}, seed=0)["strict"]
    assert at.recall.value == pytest.approx((1 / 2 + 1 + 0) / 3)
    second = 1 / np.log2(3)
    assert at.ndcg.value == pytest.approx((1 / (1 + second) + second) / 3)
    assert (at.target_calls.value, at.accept_steps.value, at.nodes.value, at.draft_calls.value) == (2, 2, 10, 1)
    assert at.accept_steps.low == pytest.approx(4 - at.target_calls.high)
    assert (at.coverage, at.stand_ins, at.acceptance, at.k) == (0.4, 1, (0.5, None), 2)
    assert at.recall.low <= at.recall.value <= at.recall.high
    assert at.differing is None
    assert at.difference is None


def test_warm_and_cold_labels_count_apart() -> None:
    at = at_k({"strict": outcome(*LISTS)}, TRUTH, 2, plain=None, strict=set(), seed=0)["strict"]
    assert at.warm is not None
    assert at.cold is not None
    assert (at.warm.requests, at.cold.requests) == (2, 2)  # u and w; v and w
    assert at.warm.recall.value == pytest.approx((1 / 2 + 0) / 2)
    assert at.cold.recall.value == pytest.approx((1 + 0) / 2)
    unknown = Truth(TRUTH.users, TRUTH.labels, None, 10, 4)
    at = at_k({"strict": outcome(*LISTS)}, unknown, 2, plain=None, strict=set(), seed=0)["strict"]
    assert at.warm is at.cold is None


def test_differences_are_paired_and_unlike_lists_are_counted() -> None:
    outcomes = {
        "strict": outcome(*LISTS, calls=(1, 2, 3)),
        "relaxed": outcome(["q", "a"], ["x", "q"], ["b", "r"], calls=(2, 3, 4)),
        "plain": outcome(["r", "a"], ["q", "x"], ["q", "r"], calls=(4, 4, 4)),
    }
    figures = at_k(outcomes, TRUTH, 2, plain="plain", strict={"strict"}, seed=0)
    assert [at.differing for at in figures.values()] == [1, None, None]
    more = figures["relaxed"].difference
    assert more is not None
    assert msgspec.structs.astuple(more.target_calls) == pytest.approx((1, 1, 1))
    assert more.recall.value == pytest.approx(1 / 2 / 3)


def test_lists_may_swap_what_scores_alike() -> None:
    assert same_list("ab", [-1, -2], "ab", [-1.001, -2])
    assert same_list("ab", [-1, -1.00001], "ba", [-1, -1.00001])
    assert not same_list("ab", [-1, -2], "ba", [-1, -1.5])
    assert not same_list("ab", [-1, -2], "a", [-1])
    assert same_list("ab", [-1, -2], "ac", [-1, -2])  # the third best scores as the second does
    assert not same_list("ab", [-1, -2], "cb", [-1, -2])


def test_paces_by_hand() -> None:
    slow = np.array([0.4, 0.8, 1.2])
    strict, plain = paces({"strict": slow / 2, "plain": slow}, ("plain", "generate"), 5, 4)
    assert (strict.name, strict.k, strict.batch, strict.rounds) == ("strict", 5, 4, 3)
    assert strict.milliseconds.value == pytest.approx(100)
    assert list(strict.speedup) == ["plain"]
    assert msgspec.structs.astuple(strict.speedup["plain"]) == pytest.approx((2, 2, 2))
    assert plain.speedup == {}
    once, other = told_once((strict, plain), {"strict"}, "plain")
    assert (once.name, once.same_as, once.milliseconds, once.speedup) == ("strict", "plain", plain.milliseconds, {})
    assert other == plain


def test_contestants_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "PAUSE", 0)
    users = [Example(str(i), ("1",), ("2",)) for i in range(3)]
    rounds = speed.rounds_of(users, 2, 4)
    assert [[user.user for user in group] for group in rounds] == [["0", "1"], ["2", "0"], ["1", "2"], ["0", "1"]]
    calls: list[str] = []

    def contestant(name: str) -> speed.Contestant:
        def serve(group: Sequence[Example]) -> str:
            calls.append(name)
            return name + group[0].user

        return serve

    told: list[int] = []
    seconds, answers = speed.take_turns({name: contestant(name) for name in "abc"}, rounds, progress=told.append)
    orders = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)  # the warm-up's three, too
    assert len(orders) == 7
    assert len(set(orders)) > 2
    assert answers["b"] == ["b0", "b2", "b1", "b0"]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 4, "b": 4, "c": 4}
    assert told == [0, 0, 0, 1, 2, 3, 4]


def test_settings_that_do_not_fit_are_refused() -> None:
    for wrong, message in (
        ({"top_k": (5, 5)}, "each once"),
        ({"verify": ()}, "at least one"),
        ({"users": 0}, "users is 0, expected a whole number, at least 1"),
        ({"slack": 0.1}, "a slack is for tolerant"),
        ({"temperature": 2.0}, "a temperature is for relaxed and sampled"),
        ({"drafting": "auto"}, r"drafting is 'auto', expected such as Drafting\(\)"),
        ({"batching": 8}, r"batching is 8, expected such as Batching\(\)"),
    ):
        with pytest.raises(OptionError, match=message):
            Settings(**wrong)  # type: ignore[arg-type]
    for settings in (
        Settings(verify=("relaxed",)),
        Settings(drafting=Drafting(shape=DraftShape())),
        Settings(drafting=Drafting(speculation="fixed")),
    ):
        with pytest.raises(OptionError, match="draft"):
            searches_of(settings, "full", has_draft=False)


def test_searches() -> None:
    settings = Settings(
        verify=("strict", "tolerant", "sampled"), rule="both", slack=0.2, temperature=0.5, seed=7,
        drafting=Drafting(speculation="auto"),
    )  # fmt: skip
    searches = {search.name: search for search in searches_of(settings, "full", has_draft=True)}
    assert list(searches) == [
        "strict", "strict, all-or-nothing", "tolerant", "tolerant, all-or-nothing", "sampled",
        "sampled, all-or-nothing", "plain",
    ]  # fmt: skip
    assert [searches[name].drafting for name in ("strict", "tolerant", "plain")] == ["auto", "fixed", "nothing"]
    assert searches["tolerant"].shape == DraftShape()
    assert (searches["sampled"].seed, searches["sampled"].temperature, searches["sampled"].scoring) == (
        7, 0.5, "constrained",
    )  # fmt: skip
    assert [search.name for search in searches.values() if search.exact] == ["strict", "strict, all-or-nothing"]


@pytest.mark.parametrize(
    ("settings", "about", "drafting"),
    [
        (Settings(), {}, "auto"),  # as infer
        (Settings(verify=("sampled",)), {}, "auto"),
        (Settings(verify=("relaxed",)), {}, "fixed"),  # its lists depend on what is drafted
        (Settings(drafting=Drafting(shape=DraftShape())), {}, "fixed"),
        (Settings(drafting=Drafting(speculation="fixed")), {}, "fixed"),
        (Settings(rule="both"), {}, "fixed"),  # rules are compared on the same drafts
        (Settings(rule="both", drafting=Drafting(speculation="auto")), {}, "auto"),
        (Settings(), {"planned": False}, "fixed"),
        (Settings(), {"has_draft": False}, "auto"),  # it may evaluate all children
        (Settings(), {"has_draft": False, "planned": False}, "nothing"),
    ],
)
def test_what_is_drafted_unless_it_is_said(settings: Settings, about: dict[str, bool], drafting: str) -> None:
    assert searches_of(settings, "full", **({"has_draft": True} | about))[0].drafting == drafting


def test_importing_it_is_light() -> None:
    assert not loaded_by("import specbeam.evaluate, specbeam.evaluate.table") & HEAVY


@pytest.fixture
def shop(tiny: Tiny, tmp_path: Path) -> Path:
    """A dataset of the tiny catalog: 12 users, one of whom knows no item, one of whom has two requests."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "index.json").write_text(tiny.index.read_text())
    write(folder / "train.jsonl", *({"user": f"t{i}", "items": [str(i), str(i + 1)]} for i in range(20)))
    rows: list[Any] = [
        {"user": f"u{i % 10}", "items": [str(i), str(2 * i)], "labels": [str(3 * i), str(39 - i), "nowhere"]}
        for i in range(11)
    ]
    write(folder / "test.jsonl", *rows, {"user": "lost", "items": ["nowhere"], "labels": ["1"]})
    return folder


def test_the_command_measures_writes_and_draws(tiny: Tiny, shop: Path, tmp_path: Path) -> None:
    output, per_user, plot = (tmp_path / name for name in ("results.json", "users.jsonl", "plot.svg"))
    result = good(
        "evaluate", tiny.bundle, shop, "-k", 4, "-k", 2, "--verify", "strict", "--verify", "relaxed", "--rule", "both",
        "--timed-users", 2, "--batch-size", 2, "--threads", 1, "--draft-width", 12, "-o", output,
        "--per-user", per_user, "--plot", plot,
    )  # fmt: skip
    found = msgspec.json.decode(output.read_bytes(), type=Evaluation)
    assert described(found) in result.stdout
    assert max(map(len, result.stdout.split("\n\nNote")[0].splitlines()[5:])) <= 120
    assert (found.data.requests, found.data.users, found.data.left_out) == (11, 10, 1)
    assert (found.data.unknown_labels, found.data.items) == (11, 40)
    assert "1 requests are left out" in result.stdout
    names = ["strict", "strict, all-or-nothing", "relaxed", "relaxed, all-or-nothing", "plain"]
    assert [mode.search.name for mode in found.modes] == names
    by_name = {mode.search.name: mode.at for mode in found.modes}
    assert [at.k for at in by_name["strict"]] == [2, 4]
    assert [at.differing for name in names[:2] for at in by_name[name]] == [0] * 4
    assert "44 of 44 strict lists are those of plain beam search" in result.stdout
    assert all(at.target_calls.value == 3 for at in by_name["plain"])
    for at, plain in zip(by_name["strict"], by_name["plain"], strict=True):
        assert at.recall == plain.recall
        assert at.target_calls.value < 3
    assert {(pace.batch, pace.name) for pace in found.paces} == {
        *((batch, name) for batch in (1, 2) for name in names), (1, "generate"),
    }  # fmt: skip
    assert [pace.differing for pace in found.paces if pace.name == "generate"] == [0, 0]
    rows = lines(per_user)
    assert len(rows) == 11 * 5 * 2
    mine = [row for row in rows if row["mode"] == "strict" and row["k"] == 4]
    assert np.mean([row["recall"] for row in mine]) == pytest.approx(by_name["strict"][1].recall.value)
    assert all(len(set(row["items"])) == 4 for row in mine)
    assert "Speed-up WS@K over generate (batch 1)" in plot.read_text("utf-8")
    assert "Target calls a request" in plot.read_text("utf-8")
    where = f"{processor()}, processors: {found.setup.processors}, threads of an engine: 1, ONNX Runtime 1."
    for text in (result.stdout, plot.read_text("utf-8").replace("</text>", " ")):
        assert where in text
    assert "target calls at batch 2" in plot.read_text("utf-8")
    work = result.stdout.partition("Work, means of a request:")[2].partition("Differences to strict")[0]
    assert [row.split("|")[-2].strip() for row in work.splitlines() if row.startswith("| plain")] == ["-"]
    for heading in ("Recall@K", "R warm", "coverage", "target calls", "AS@K", "nodes", "acceptance by depth", "WS@K"):
        assert f"{heading}:" in result.stdout or f"{heading}, " in result.stdout, heading
    assert "target calls, difference" in result.stdout
    assert [at.acceptance for at in by_name["plain"]] == [(None, None)] * 2
    assert "strict: 12 nodes at each of 3 depths drafted (fixed)" in result.stdout


def test_without_walltime_the_picture_has_one_panel(tiny: Tiny, shop: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    good("evaluate", tiny.bundle, shop, "-k", 2, "--timed-users", 0, "--users", 5, "--plot", plot, "--threads", 1)
    assert "Target calls a request" in plot.read_text("utf-8")
    assert "WS@K" not in plot.read_text("utf-8")


def test_the_draw_of_users_is_seeded(tiny: Tiny, shop: Path) -> None:
    dataset, catalog = Dataset.open(shop), Bundle.open(tiny.bundle).catalog()

    def drawn(**settings: Any) -> tuple[str, ...]:
        return HeldOut.of(dataset, Settings(**settings), tiny.bundle, catalog, 3).truth.users

    assert len(drawn(users=5)) == 5
    assert drawn(users=5) == drawn(users=5)
    assert len({drawn(users=5, seed=seed) for seed in range(5)}) > 1
    assert len(drawn(users=100)) == 11


def test_without_training_histories_warm_is_not_known(tiny: Tiny, shop: Path) -> None:
    (shop / "train.jsonl").unlink()
    found = evaluate(
        tiny.bundle, Dataset.open(shop), Settings(top_k=(2,), timed_users=0, engine=EngineChoice(threads=1))
    )
    assert found.data.warm_labels is None
    assert found.modes[0].at[0].warm is None
    assert "warm)" not in described(found)


def test_generate_is_skipped_with_the_reason(bundle: Path, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Bundle.open(bundle).manifest.files
    edit_manifest(bundle, files={name: facts for name, facts in files.items() if "checkpoint" not in name})
    arguments = ("evaluate", bundle, shop, "-k", 2, "--timed-users", 1, "--batch-size", 1, "--threads", 1)
    result = good(*arguments)
    assert "Note: generate was not timed:" in result.stdout
    assert "has no target/checkpoint" in result.stdout
    assert "WS@K, plain" in result.stdout
    assert "WS@K, generate" not in result.stdout
    monkeypatch.delitem(sys.modules, "specbeam.evaluate.generate", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert f"transformers is not installed; run: {install('export')}" in good(*arguments).stdout


def test_what_cannot_be_evaluated_is_refused(tiny: Tiny, shop: Path, tmp_path: Path) -> None:
    assert "no requests in its valid split" in bad("evaluate", tiny.bundle, shop, "--split", "valid")
    assert "at most 200 items" in bad("evaluate", tiny.bundle, shop, "-k", 201)
    assert "a slack is for tolerant" in bad("evaluate", tiny.bundle, shop, "--slack", 1)
    output = tmp_path / "results.json"
    assert "expected another name for every output" in bad(
        "evaluate", tiny.bundle, shop, "-o", output, "--per-user", output
    )
    assert "got the suffix '.gif'" in bad("evaluate", tiny.bundle, shop, "--plot", tmp_path / "plot.gif")
    only(output)
    output.write_text("mine")
    assert "exists already" in bad("evaluate", tiny.bundle, shop, "-o", output)
    assert output.read_text() == "mine"


def test_relaxed_needs_a_draft(bundle: Path, shop: Path) -> None:
    edit_manifest(bundle, draft=None)
    assert "relaxed verification needs a draft" in bad("evaluate", bundle, shop, "--verify", "relaxed")
    result = good("evaluate", bundle, shop, "-k", 2, "--timed-users", 0, "--threads", 1)
    assert "22 of" not in result.stdout
    assert "11 of 11 strict lists" in result.stdout


def test_who_does_the_same_is_not_compared(tiny: Tiny, shop: Path, tmp_path: Path) -> None:
    """Without a drafter strict search is plain beam search: no ratio is told, and times are told once."""
    output = tmp_path / "results.json"
    told = good(
        "evaluate", tiny.bundle, shop, "-k", 2, "--against", "plain", "--timed-users", 6, "--batch-size", 1,
        "--drafter", "none", "--threads", 1, "-o", output,
    ).stdout  # fmt: skip
    (strict, plain) = msgspec.json.decode(output.read_bytes(), type=Evaluation).paces
    assert (strict.same_as, strict.milliseconds, strict.speedup) == ("plain", plain.milliseconds, {})
    assert "| as plain" in told
    assert "nothing was drafted, so the work was plain's" in told
    assert "WS@K, plain" not in told


def test_a_busy_machine_is_told_of_everywhere(
    tiny: Tiny, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specbeam.evaluate.run.load", lambda: 500.0)
    output, plot = tmp_path / "results.json", tmp_path / "plot.svg"
    told = good(
        "evaluate", tiny.bundle, shop, "-k", 2, "--against", "plain", "--timed-users", 1, "--threads", 1, "-o", output,
        "--plot", plot,
    ).stdout  # fmt: skip
    found = msgspec.json.decode(output.read_bytes(), type=Evaluation)
    said = f"the machine was busy when timing began (load 500.0 on {found.setup.processors} processors)"
    for text in (told, plot.read_text("utf-8"), " ".join(found.notes)):
        assert said in text
    assert found.setup.load == 500
    assert "1 rounds of walltime are too few for 95 % intervals" in told
    assert "95 % intervals, of the speed-up all of 1 rounds" in plot.read_text("utf-8")


def test_a_machine_that_is_not_busy_is_not_spoken_of() -> None:
    assert busy(2.5, 2) is busy(None, 2) is None
    assert busy(2.6, 2) is not None
    assert processor()


def test_a_bundle_of_another_dataset_is_refused(tiny: Tiny, shop: Path) -> None:
    index = json.loads(tiny.index.read_text())
    (shop / "index.json").write_text(json.dumps({item: identifier[::-1] for item, identifier in index.items()}))
    message = bad("evaluate", tiny.bundle, shop)
    assert "do not belong together: of 40 items in both" in message
    (shop / "index.json").write_text(json.dumps({f"x{item}": identifier for item, identifier in index.items()}))
    write(shop / "test.jsonl", {"user": "u", "items": ["x1"], "labels": ["x2", "x3"]})
    assert "none of 2 items to be found in the test split is among the bundle's 40" in bad(
        "evaluate", tiny.bundle, shop
    )
    write(shop / "test.jsonl", {"user": "u", "items": ["x1"], "labels": ["2"]})
    with pytest.raises(SpecBeamError, match="none of 1 histories"):
        evaluate(tiny.bundle, Dataset.open(shop))


def test_an_engine_of_another_precision_may_differ_from_generate(bundle: Path, shop: Path) -> None:
    """`generate` runs the checkpoint: what a rounded engine ranks otherwise is no fault of the search."""
    good(
        "build-engine", bundle, "--precision", "int8", "--calibration", shop, "--method", "weight4", "--no-gate",
        "--threads", 1,
    )  # fmt: skip
    told = good(
        "evaluate", bundle, shop, "--engine", "onnxruntime-cpu-int8", "-k", 8, "--timed-users", 4, "--batch-size", 1,
        "--threads", 1,
    ).stdout  # fmt: skip
    assert "strict lists are not those of generate; it runs the checkpoint, not onnxruntime-cpu-int8" in told
    assert "expected none" not in told
