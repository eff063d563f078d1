"""The forecast of a batch's cost: against cases by hand, and against a simulation of the process."""

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_cases import expected_milliseconds
from planning_cases import NEW, PLANS, accepting, catalog, linear, priced, situation, situations
from specbeam.runtime.planning.plans import ENUMERATE, NOTHING, Plan, Policy, Situation


def test_nothing_is_a_call_a_depth() -> None:
    target = linear(10, 0.1, 0.01)
    case = situation(accepting(10, lambda s, j, w: 0.5), target, None, shared_prefix=16)
    expected = target.milliseconds(1, 16, 64) + sum(target.milliseconds(1, 80 + 10 * d, 10) for d in range(3))
    assert expected_milliseconds((NOTHING,) * 4, **case) == pytest.approx(expected)
    # Nobody knows of the others: a batch goes through the same calls.
    expected = target.milliseconds(8, 16, 64) + sum(target.milliseconds(8, 80 + 10 * d, 10) for d in range(3))
    assert expected_milliseconds((NOTHING,) * 4, **case | {"batch": 8}) == pytest.approx(expected)


def test_enumerating_saves_a_call_for_certain_and_costs_its_nodes() -> None:
    target = linear(10, 0.1)
    case = situation(accepting(10, lambda s, j, w: 0.0), target, None, batch=4)
    policy = (ENUMERATE, NOTHING, ENUMERATE, NOTHING)
    expected = target.milliseconds(4, 0, 80 + 60) + target.milliseconds(4, 0, 10 + 80)
    assert expected_milliseconds(policy, **case) == pytest.approx(expected)


def test_a_draft_is_paid_level_by_level_and_what_it_lacks_is_made_up() -> None:
    target, draft = linear(10, 0.1), linear(1, 0.01)
    chance = {1: 0.6, 2: 0.3}
    case = situation(accepting(10, lambda s, j, w: chance[j], catalog(3)), target, draft)
    t, d = (lambda new: target.milliseconds(1, 0, new)), (lambda new: draft.milliseconds(1, 0, new))
    # After the first round: at depth 1 with 5 of 10 nodes, at depth 2 with 5 of 10, or done.
    expected = t(80 + 40 + 24) + d(80) + d(40) + 0.4 * (t(5) + t(10)) + 0.6 * 0.7 * t(5)
    assert expected_milliseconds((Plan((40, 24)), NOTHING, NOTHING), **case) == pytest.approx(expected)
    # Drafting only where the first level failed: the draft reads the prompt then, and the frontier.
    expected = t(80) + d(80 + 10) + t(10 + 24) + 0.4 * t(5)
    assert expected_milliseconds((NOTHING, Plan((24,)), NOTHING), **case) == pytest.approx(expected)
    # Levels beyond the last useful depth are not drafted, nor is anything below a level of no width.
    assert expected_milliseconds((NOTHING, Plan((24, 40, 40)), Plan((8,))), **case) == pytest.approx(expected)
    cut, whole = ((plan, NOTHING, NOTHING) for plan in (Plan((0, 24)), NOTHING))
    assert expected_milliseconds(cut, **case) == expected_milliseconds(whole, **case)


def test_a_shared_prefix_is_paid_by_neither() -> None:
    target, draft = linear(10, 0.1, 0.02), linear(1, 0.01, 0.002)
    case = situation(accepting(10, lambda s, j, w: 1.0), target, draft, shared_prefix=50)
    expected = (
        target.milliseconds(1, 50, 30 + 3 * 40) + draft.milliseconds(1, 50, 30) + 2 * draft.milliseconds(1, 80, 40)
    )
    assert expected_milliseconds((Plan((40, 40, 40)), *(NOTHING,) * 3), **case) == pytest.approx(expected, rel=0.01)


def test_the_host_s_work_counts_nodes_and_not_prompts() -> None:
    bare, host = linear(10, 0.1), priced(lambda b, p, n: 10 + 0.1 * b * n, host_call_ms=0.5, host_node_ms=0.02)
    draft = linear(1, 0.01), priced(lambda b, p, n: 1 + 0.01 * b * n, host_call_ms=0.3, host_node_ms=0.01)
    acceptance, policy = accepting(10, lambda s, j, w: 1.0), (Plan((40, 24, 16)), *(NOTHING,) * 3)
    without, with_host = (
        expected_milliseconds(policy, **situation(acceptance, *costs, batch=2))
        for costs in ((bare, draft[0]), (host, draft[1]))
    )
    assert with_host - without == pytest.approx(0.5 + 0.02 * 2 * 80 + 3 * 0.3 + 0.01 * 2 * (40 + 24))


def test_policies_that_do_not_fit_are_refused() -> None:
    case = situation(accepting(10, lambda s, j, w: 1.0), linear(10, 0.1), None)
    with pytest.raises(ValueError, match="plans for 2 depths, expected 4"):
        expected_milliseconds((NOTHING,) * 2, **case)
    with pytest.raises(ValueError, match="no costs of a draft"):
        expected_milliseconds((Plan((8,)), *(NOTHING,) * 3), **case)
    for bad in ({"batch": 0}, {"width": 0}, {"shared_prefix": 80}, {"shared_prefix": -1}):
        with pytest.raises(ValueError, match="expected 1 or more"):
            expected_milliseconds((NOTHING,) * 4, **case | bad)  # type: ignore[arg-type]


class Remembered:
    """An object whose methods are pure and slow."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __getattr__(self, name: str) -> Any:
        remembered = lru_cache(maxsize=None)(getattr(self._of, name))
        setattr(self, name, remembered)
        return remembered


def simulated(rng: np.random.Generator, policy: Policy, case: Situation, runs: int) -> np.ndarray:
    """[runs] times of one batch as the model of a round says, request by request and call by call."""
    known, target, draft = (Remembered(case[name]) for name in ("acceptance", "target", "draft"))
    return np.array([one_batch(rng, policy, case, known, target, draft) for _ in range(runs)])


def one_batch(rng: np.random.Generator, policy: Policy, case: Situation, known: Any, target: Any, draft: Any) -> float:
    batch, k, length = case["batch"], case["width"], case["acceptance"].length
    fresh, first, draft_has_prompt = case["prompt"] - case["shared_prefix"], True, False
    depth, missing, cached = [0] * batch, [0.0] * batch, [float(case["shared_prefix"])] * batch
    needed = np.cumsum([0.0, *(known.needed_nodes(k, s) * (s > 0) for s in range(length))])  # above a depth
    total = 0.0
    while active := [i for i in range(batch) if depth[i] < length]:
        plans = {i: list(policy[depth[i]].widths[: length - 1 - depth[i]]) for i in active}
        for plan, i in zip(plans.values(), active, strict=True):
            if plan:  # no more than there are
                plan[0] = min(plan[0], known.enumerated(k, depth[i]))
        for level in range(max(len(plan) for plan in plans.values())):
            who = [i for i in active if len(plans[i]) > level]
            asked = {i: plans[i][level - 1] if level else known.needed_nodes(k, depth[i]) * (depth[i] > 0) for i in who}
            last = max(who, key=lambda i: asked[i])
            prompt = 0 if draft_has_prompt else fresh
            past = case["shared_prefix"] if prompt else max(cached[last], case["prompt"])
            total += draft.milliseconds(len(active), past, asked[last] + prompt, prompt)
            draft_has_prompt = True
        prompt = fresh if first else 0
        new = {
            i: prompt + missing[i] + (known.enumerated(k, depth[i]) if policy[depth[i]].enumerate else sum(plans[i]))
            for i in active
        }
        last = max(active, key=lambda i: new[i])
        total += target.milliseconds(len(active), cached[last], new[last], prompt)
        first = False
        for i in active:
            depth[i], missing[i] = advanced(rng, depth[i], policy[depth[i]], known, k, length)
            cached[i] = case["prompt"] + needed[depth[i]]  # what was drafted in vain is not counted
    return total


def advanced(rng: np.random.Generator, start: int, plan: Plan, known: Any, k: int, length: int) -> tuple[int, float]:
    """Where a request stands after a round, and how many nodes it lacks there."""
    for level in range(1, length - start):
        if plan.enumerate and level == 1:
            continue
        width = plan.widths[level - 1] if level <= len(plan.widths) else 0
        complete, share = known.p_complete(k, start, level, width), known.share_found(k, start, level, width)
        if rng.random() >= complete:
            lost = known.needed_nodes(k, start + level) * (1 - share) / (1 - complete)
            return start + level, min(max(lost, 1), k)
    return length, 0.0


@given(
    seed=st.integers(0, 10**6),
    plans=st.lists(PLANS, min_size=5, max_size=5),
    shared=st.sampled_from([0, 30]),
    idle=st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=20, deadline=None)
def test_one_request_costs_what_it_does_on_average(seed: int, plans: list[Plan], shared: int, idle: float) -> None:
    if idle:  # else requests may have gone different ways before their first draft, which is only nearly exact
        plans[0] = Plan((30,))
    rng = np.random.default_rng(seed)
    trie = catalog(5, items=20000)
    table = rng.uniform(0.2, 0.9, (5, 5))
    acceptance = accepting(10, lambda s, j, w: table[s, j] * (1 - 0.5 / w), trie, idle=idle)
    # Bends in the tokens, straight lines in what is cached. What a node less saves is taken to be the same everywhere.
    bends = np.cumsum(rng.uniform(0.5, 1.5, len(NEW)))
    target = priced(lambda b, p, n: float(bends[NEW.index(n)]) + 0.004 * p)
    draft = priced(lambda b, p, n: float(bends[NEW.index(n)]) / 7 + 0.0003 * p)
    case = situation(acceptance, target, draft, prompt=90, shared_prefix=shared)
    runs = simulated(rng, tuple(plans), case, 2000)
    error = 5 * runs.std() / np.sqrt(len(runs)) + 0.1 * runs.mean()
    assert abs(expected_milliseconds(tuple(plans), **case) - runs.mean()) < error


@pytest.mark.parametrize("batch", [2, 8, 32])
@pytest.mark.parametrize(
    "policy",
    [
        (Plan((40, 24, 24)), NOTHING, NOTHING, NOTHING),
        (Plan((30,)), Plan((30, 16)), Plan((16,)), NOTHING),
        (ENUMERATE, NOTHING, Plan((24,)), NOTHING),
        (NOTHING, Plan((40, 40)), ENUMERATE, NOTHING),
    ],
)
def test_a_batch_costs_about_what_it_does_on_average(batch: int, policy: Policy) -> None:
    rng = np.random.default_rng(batch)
    acceptance = accepting(10, lambda s, j, w: 0.9 - 0.15 * j - 3 / (w + 9))
    case = situation(acceptance, linear(5, 0.02), linear(1, 0.004), batch=batch)
    mean = simulated(rng, policy, case, 400).mean()
    assert expected_milliseconds(policy, **case) == pytest.approx(mean, rel=0.13)


@given(situations(), st.lists(PLANS, min_size=5, max_size=5))
@settings(max_examples=60, deadline=None)
def test_expected_times_are_finite_and_at_least_a_call(case: Situation, plans: list[Plan]) -> None:
    if case["draft"] is None:
        plans = [Plan(enumerate=plan.enumerate) for plan in plans]
    policy = tuple(plans[: case["acceptance"].length])
    shared, prompt = case["shared_prefix"], case["prompt"]
    least = case["target"].milliseconds(case["batch"], shared, prompt - shared)
    assert least * (1 - 1e-9) <= expected_milliseconds(policy, **case) < float("inf")
