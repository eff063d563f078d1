"""The planner in the loop: every request by its depth, and what it learns."""

from typing import Any

import numpy as np
import pytest

from planner_cases import drafts
from planning_cases import TRIE, accepting, catalog, linear, situation
from scripted_search import random_catalog, search
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.drafting.drafter import enumerated
from specbeam.runtime.planning.acceptance import Acceptance
from specbeam.runtime.planning.planner import (
    ENUMERATE,
    Planner,
    Policy,
    choose,
)
from specbeam.runtime.search.trie_view import TrieView
from specbeam.runtime.types import DraftTree, Frontier, Hypotheses, NodeList, Step, Verdict

COSTS = linear(10, 0.08), linear(0.5, 0.001)


def frontier(depth: list[int], width: list[int], active: list[bool] | None = None) -> Frontier:
    batch = len(depth)
    nodes = np.full((batch, 10), -1)
    nodes[:, 0] = np.where(active or [True] * batch, 0, -1)
    some = Hypotheses(nodes, np.zeros(nodes.shape), np.zeros(nodes.shape))
    return Frontier(some, some, np.array(depth), np.array(width))


def planner(**more: Any) -> Planner:
    acceptance = accepting(10, lambda s, j, w: w / (w + 4) if s == 0 else 0.0)
    return Planner(linear(10, 0.01), linear(0.5, 0.001), acceptance, **more)


def test_every_request_is_planned_for_by_its_depth() -> None:
    plans = planner()
    policy = plans.policy(4, 80, 10)
    assert policy[0].widths
    assert policy[2] == ENUMERATE
    widths, every = plans.plan(frontier([0, 2, 0, 3], [10] * 4, [True, True, False, True]), 80)
    assert widths[0].tolist() == list(policy[0].widths)
    assert widths.shape == (4, len(policy[0].widths))
    assert not widths[1:].any()
    assert every.tolist() == [False, True, False, False]
    widths, every = plans.plan(frontier([0, 0], [10, 10], [False, False]), 80)
    assert (widths.shape, every.tolist()) == ((2, 0), [False, False])


def test_every_request_is_planned_for_by_its_k() -> None:
    few, many = (
        choose(**situation(Acceptance(TRIE), *COSTS, batch=2, prompt=80, width=1)),
        choose(**situation(Acceptance(TRIE), *COSTS, batch=2, prompt=80, width=10)),
    )
    assert few[0].widths != many[0].widths
    widths, _ = Planner(*COSTS, Acceptance(TRIE)).plan(frontier([0, 0], [1, 10]), 80)
    assert [row[row > 0].tolist() for row in widths] == [list(few[0].widths), list(many[0].widths)]


def test_policies_are_kept_until_half_as_much_again_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counting(**case: Any) -> Policy:
        calls.append((case["batch"], case["prompt"], case["width"]))
        return choose(**case)

    monkeypatch.setattr("specbeam.runtime.planning.planner.choose", counting)
    acceptance = Acceptance(TRIE)
    plans = Planner(*COSTS, acceptance, shared_prefix=3)
    for prompt in (77, 80, 82):
        plans.plan(frontier([0], [10]), prompt)
    assert calls == [(1, 80, 10)]
    plans.plan(frontier([0], [10]), 99)
    plans.plan(frontier([0, 1], [10, 10]), 80)
    plans.plan(frontier([0], [9]), 80)
    assert calls[1:] == [(1, 97, 10), (2, 80, 10), (1, 80, 9)]
    plans.plan(frontier([0], [10]), 1)
    assert calls[4:] == [(1, 4, 10)]  # a prompt is longer than what is shared
    del calls[:]
    for known, chosen in ((29, 0), (30, 1), (44, 1), (45, 2)):
        while acceptance.requests(10) < known:
            look(plans, 10)
        plans.policy(1, 80, 10)
        assert len(calls) == chosen


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
    few = catalog(4, first=8)
    plans = Planner(linear(10, 0.01), None, Acceptance(few))
    before, other = frontier([0], [10]), frontier([0], [10])
    assert plans.plan(before, 80)[1].tolist() == [True]
    plans.observe(other, *came_of(other))  # was not planned
    assert plans.acceptance.requests(10) == 0
    plans.observe(before, *came_of(before))
    assert trials(plans.acceptance) == 0
    assert plans.acceptance.requests(10) == 1
    plans.observe(before, *came_of(before))  # planned once, observed once
    assert plans.acceptance.requests(10) == 1


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
    plans = Planner(linear(30, 0.03), linear(0.2, 0.001) if with_draft else None, Acceptance(trie))
    believed = plans.policy(8, 6, 5)
    fast = []
    calls = 0
    for start in range(0, 40, 8):
        part, evaluator, _ = search(trie, target, prompts[start : start + 8], 5, draft=draft, planning=plans)
        fast += part
        calls += int(evaluator.calls.sum())
    assert [[node for node, _ in one] for one in fast] == [[node for node, _ in one] for one in plain]
    assert calls < slow.calls.sum()
    assert plans.acceptance.requests(5) == 40
    assert drafts(believed) == with_draft
    if with_draft:
        assert trials(plans.acceptance) > 40
        assert plans.acceptance.p_complete(5, 0, 1, 8) < Acceptance(trie).p_complete(5, 0, 1, 8)
    assert "nothing" in plans.rationale(8, 6, 5)
