"""Evaluation: intervals and figures by hand, turns without models, and the command on a tiny pair."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from specbeam.catalog.errors import OptionError
from specbeam.catalog.histories.dataset import Example
from specbeam.evaluate import Settings, speed
from specbeam.evaluate.figures import Outcome, Truth, at_k, paces, same_list, told_once
from specbeam.evaluate.settings import searches_of
from specbeam.runtime import Drafting, DraftShape
from specbeam.runtime.metrics import coverage, estimate, median_estimate, resampled_means


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
        ({"drafting": Drafting(reuse=False)}, "discarded by the rule"),
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
