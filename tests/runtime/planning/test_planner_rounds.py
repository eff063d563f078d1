"""The planner in the loop: every request by its depth, and what it learns."""

from typing import Any

import numpy as np
import pytest

from kept_cases import DEAR, calls_of, frontier
from planner_cases import drafts
from planning_cases import TRIE, accepting, catalog, linear
from scripted_search import random_catalog, search
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.drafting.drafter import enumerated
from specbeam.runtime.planning.acceptance import Acceptance
from specbeam.runtime.planning.budget import DOSE, LOAN
from specbeam.runtime.planning.planner import BEFORE, FIRST, SOME, Planner
from specbeam.runtime.search.trie_view import TrieView
from specbeam.runtime.stats import Call
from specbeam.runtime.types import DraftTree, Frontier, Hypotheses, NodeList, Step, Verdict

COSTS = linear(10, 0.08), linear(0.5, 0.001)


def knowing(**more: Any) -> Planner:
    acceptance = accepting(10, lambda s, j, w: w / (w + 4) if s == 0 else 0.0)
    return Planner(linear(10, 0.01), linear(0.5, 0.001), acceptance, tuned=True, **more)


def k_of(batch: int, k: int = 10) -> np.ndarray:
    return np.full(batch, k)


def test_every_request_is_planned_for_by_its_depth() -> None:
    plans = knowing()
    policy = plans.policy(4, 80, 10)
    assert len(set(policy[:3])) > 1
    course, depths = plans.begin(k_of(4), 80), [0, 2, 0, 1]
    widths, every = course.plan(frontier(depths, [10] * 4, [True, True, False, True]))
    assert [tuple(row[row > 0].tolist()) for row in widths] == [
        () if request == 2 else policy[depth].widths for request, depth in enumerate(depths)
    ]
    assert every.tolist() == [request != 2 and policy[depth].enumerate for request, depth in enumerate(depths)]
    widths, every = course.plan(frontier([0, 0, 0, 0], [10] * 4, [False] * 4))
    assert (widths.shape, every.tolist()) == ((4, 0), [False] * 4)


def test_every_request_is_planned_for_by_its_k() -> None:
    plans = Planner(linear(10, 0.01), COSTS[1], Acceptance(TRIE), tuned=True)
    plans.effort.serving = 1e6
    few, many = plans.policy(2, 80, 1), plans.policy(2, 80, 10)
    assert few[0].widths != many[0].widths
    widths, _ = plans.begin(np.array([1, 10]), 80).plan(frontier([0, 0], [1, 10]))
    assert [row[row > 0].tolist() for row in widths] == [list(few[0].widths), list(many[0].widths)]


def test_policies_are_kept_until_half_as_much_again_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    made, make = [], Planner._made

    def counting(self: Planner, key: Any) -> Any:
        made.append(key)
        return make(self, key)

    monkeypatch.setattr(Planner, "_made", counting)
    acceptance = Acceptance(TRIE)
    plans = Planner(*COSTS, acceptance, shared_prefix=3, tuned=True)
    plans.effort.serving = 1e6
    for prompt in (40, 80, 120):
        plans.begin(k_of(1), prompt)
    assert made == [(1, 64, 10)]
    for width, prompt in ((k_of(1), 140), (k_of(2), 80), (k_of(1, 9), 80)):
        plans.begin(width, prompt)
    assert made[1:] == [(1, 256, 10), (2, 64, 10), (1, 64, 9)]
    del made[:]
    for known, chosen in ((5, 0), (6, 1), (8, 1), (9, 2)):
        while acceptance.requests(10) < known:
            look(plans, 10)
        plans.begin(k_of(1), 80)
        assert len(made) == chosen


def test_there_is_no_time_for_planning_while_it_takes_more_than_its_share() -> None:
    plans = Planner(*COSTS, Acceptance(TRIE), tuned=True)
    plans.effort.planning = 1.0
    widths, every = plans.begin(k_of(1), 80).plan(frontier([0], [10]))
    assert widths.size == every.sum() == 0
    plans.effort.serving = 1000.0
    assert plans.begin(k_of(1), 80).plan(frontier([0], [10]))[0].any()


def test_beliefs_that_nobody_tuned_are_first_held_against_what_is() -> None:
    """Larger calls were believed to take no longer than small ones, as where an engine was timed on a busy machine."""
    believed, really = linear(10, 0.001), linear(2, 0.2)
    planners = [Planner(believed, None, Acceptance(catalog(4, first=60)), tuned=tuned) for tuned in (False, True)]
    for plans in planners:
        plans.effort.serving = 1e6
    ahead = np.zeros((40, 2), np.int64)
    for number, (which, plans) in ((n, each) for n in range(40) for each in enumerate(planners)):
        before = frontier([0], [10])
        course = plans.begin(k_of(1), 80)
        ahead[number, which] = course.plan(before)[1].sum()
        course.observe(before, *came_of(before))
        news = (80 + 60, 10, 10) if ahead[number, which] else (80, 10, 10, 10)
        calls = [Call("target", 1, 80, n, 0, really.milliseconds(1, 80, n) / 1000) for n in news]
        course.end(calls, sum(call.seconds for call in calls))
    assert not ahead[:BEFORE, 0].any()
    assert ahead[0, 1]
    assert ahead[:, 0].sum() <= ahead[:, 1].sum() <= 12  # whoever was wrong has seen it, and tries again seldom


@pytest.mark.parametrize("useless", [True, False])
def test_what_drafts_may_lose_is_a_share_of_what_was_served(useless: bool) -> None:
    plans = Planner(*DEAR, Acceptance(catalog(4, first=2000, items=20000)))
    plans.effort.serving = 1e6
    foreseen = plans._made((1, 79, 10)).outlook.plain
    lost, drafted = 0.0, 0
    for number in range(400):
        course = plans.begin(k_of(1), 80)
        tried = bool(course.plan(frontier([0], [10]))[0].any())
        calls = calls_of(4 if useless or not tried else 2, 3 * tried)
        course.end(calls, sum(call.seconds for call in calls))
        drafted += tried
        plain = sum(call.seconds for call in calls_of(4, 0))
        lost += 1000 * (sum(call.seconds for call in calls) - plain)
        assert lost <= LOAN * foreseen + 2 * DOSE * foreseen * (number + 1) + 1e-6
    assert 0 < drafted < 40 if useless else drafted > 300


def look(plans: Planner, k: int) -> None:
    """A round in which the first token that was drafted first was all that was needed."""
    before = frontier([0], [k])
    plans.acceptance.observe(before, *came_of(before))


def came_of(before: Frontier) -> tuple[DraftTree, Verdict]:
    nodes = np.full((1, 10), -1)
    nodes[0, 0] = 1
    after = Frontier(Hypotheses(nodes, 0.0 * nodes, 0.0 * nodes), before.finished, before.depth + 1, before.width)
    one, zero, nothing = np.ones(1, np.int64), np.zeros(1, np.int64), np.empty(0, np.int64)
    tree = DraftTree(NodeList(zero, one), one, zero, np.zeros(1), "strict")
    step = Step(np.ones(1, bool), after.depth, nodes, nodes == 1, nodes == 1, nodes == 9)
    return tree, Verdict(after, NodeList(nothing, nothing), (step,))


def trials(acceptance: Acceptance) -> int:
    return sum(level.trials[0] for width in acceptance.snapshot().widths for level in width.levels)


def test_what_was_enumerated_is_not_taken_for_a_draft() -> None:
    plans = Planner(linear(10, 0.01), None, Acceptance(catalog(4, first=8)), tuned=True)
    plans.effort.serving = 1e6
    for number in range(1, FIRST + 2 * SOME):
        before = frontier([0], [10])
        course = plans.begin(k_of(1), 80)
        assert course.plan(before)[1].tolist() == [True]
        course.observe(before, *came_of(before))
        assert trials(plans.acceptance) == 0
        looked = number if number <= FIRST else FIRST + (number - FIRST) // SOME
        assert plans.acceptance.requests(10) == looked  # what is certain is looked at first, and now and then


def test_the_enumerated_level_of_the_loop_is_as_large_as_was_planned_for() -> None:
    acceptance = Acceptance(TRIE)
    before = frontier([0], [10])
    tree = enumerated("strict", before, TrieView(TRIE), np.ones(1, bool))
    assert len(tree.nodes) == acceptance.enumerated(10, 0) == 60


@pytest.mark.parametrize("with_draft", [True, False])
def test_the_loop_finds_the_same_lists_and_the_planner_learns(with_draft: bool) -> None:
    rng = np.random.default_rng(3)
    trie = ItemTrie.build(random_catalog(rng, 2000, 4, 300))
    target = ScriptedEngine(len(trie.vocabulary), seed=1)
    draft = ScriptedEngine(len(trie.vocabulary), seed=1, disagreement=0.9) if with_draft else None
    prompts = [rng.integers(0, 99, 6) for _ in range(40)]
    plain, slow, _ = search(trie, target, prompts, 5)
    plans = Planner(linear(30, 0.03), linear(0.2, 0.001) if with_draft else None, Acceptance(trie), tuned=True)
    plans.effort.serving = 1e6
    believed = plans.policy(8, 6, 5)
    fast = []
    calls = 0
    for start in range(0, 40, 8):
        part, evaluator, _ = search(trie, target, prompts[start : start + 8], 5, draft=draft, planning=plans)
        fast += part
        calls += int(evaluator.calls.sum())
    assert [[node for node, _ in one] for one in fast] == [[node for node, _ in one] for one in plain]
    assert calls < slow.calls.sum()
    assert drafts(believed) == with_draft
    if with_draft:
        assert plans.acceptance.requests(5) == 40
        assert trials(plans.acceptance) >= 8
        assert plans.acceptance.p_complete(5, 0, 1, 8) < Acceptance(trie).p_complete(5, 0, 1, 8)
    assert "nothing" in plans.rationale(8, 6, 5)


def test_a_batch_that_others_join_goes_by_what_was_decided_and_lends_nothing() -> None:
    plans = knowing()
    policy, standing = plans.policy(4, 80, 10), plans.account.standing
    assert drafts(policy)
    widths, _ = plans.resume(k_of(4), 80).plan(frontier([0, 2], [10, 10]))
    assert [tuple(row[row > 0].tolist()) for row in widths] == [policy[0].widths, policy[2].widths]
    assert plans.account.standing == standing
    untuned = Planner(*COSTS, Acceptance(TRIE))
    assert not untuned.resume(k_of(4), 80).plan(frontier([0, 0], [10, 10]))[0].any()
    assert not plans.resume(k_of(2, 0), 80).plan(frontier([0, 0], [0, 0]))[0].any()


def test_nothing_is_concluded_from_a_batch_that_others_joined() -> None:
    plans = knowing()
    before = plans.learned()
    course = plans.begin(k_of(4), 80)
    unlooked = plans._unlooked
    course.leave(0.5)
    assert plans.effort.serving == 0.5
    assert plans._unlooked == unlooked + 1  # the look that was meant for it is still owed
    assert plans.learned().paces == before.paces
