"""The planner: its choices against common sense, and how it follows the rounds of the loop."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from planning_cases import TRIE, accepting, catalog, linear, situation, situations
from scripted_search import random_catalog, search
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.drafting.drafter import enumerated
from specbeam.runtime.planning.acceptance import GRID, Acceptance
from specbeam.runtime.planning.forecast import Situation
from specbeam.runtime.planning.planner import (
    DOUBT,
    ENUMERATE,
    LEAST_MS,
    NOTHING,
    WORTH,
    Plan,
    Planner,
    Policy,
    choose,
    expected_milliseconds,
    rationale,
)
from specbeam.runtime.search.trie_view import TrieView
from specbeam.runtime.types import DraftTree, Frontier, Hypotheses, NodeList, Step, Verdict

COSTS = linear(10, 0.08), linear(0.5, 0.001)


def drafts(policy: Policy) -> bool:
    return any(plan.widths for plan in policy)


def test_where_a_call_is_all_reading_of_weights_it_drafts_wide_and_deep() -> None:
    acceptance = accepting(10, lambda s, j, w: w / (w + 12), catalog(4, first=2000, items=20000))
    policy = choose(**situation(acceptance, linear(10, 0.001), linear(0.5, 0.0002)))
    assert len(policy[0].widths) == 3
    assert min(policy[0].widths) >= 64


def test_where_a_call_is_all_tokens_it_drafts_nothing() -> None:
    for batch in (1, 32):
        for chance in (0.1, 0.9):
            acceptance = accepting(10, lambda s, j, w, chance=chance: chance * w / (w + 12))
            case = situation(acceptance, linear(0.01, 0.1), linear(0.01, 0.02), batch=batch)
            assert choose(**case) == (NOTHING,) * 4


def test_few_first_tokens_are_enumerated_without_a_draft_or_with_a_bad_one() -> None:
    few = catalog(4, first=8)
    bad = accepting(10, lambda s, j, w: 0.0, few, children=2000.0)
    for draft in (None, linear(1, 0.001)):
        assert choose(**situation(bad, linear(10, 0.01), draft)) == (ENUMERATE, NOTHING, NOTHING, NOTHING)
    many = accepting(10, lambda s, j, w: 0.0, catalog(4, first=5000, items=20000), children=20000.0)
    # Calls that large were never measured: their straight line is not trusted, however flat it is.
    assert choose(**situation(many, linear(10, 0.0), None)) == (NOTHING,) * 4
    good = accepting(10, lambda s, j, w: 1.0, few, children=2000.0)
    assert choose(**situation(good, linear(10, 0.01), linear(0.1, 0.0001)))[0].widths


def test_hardly_anything_gained_is_nothing_gained() -> None:
    acceptance = accepting(10, lambda s, j, w: 1.0, catalog(2))
    draft = linear(1, 0.0)
    for token, expected in ((0.8, (NOTHING, NOTHING)), (0.5, (ENUMERATE, NOTHING))):
        # Against nothing, 60 nodes are evaluated where 10 are needed, and one call of 40 ms is saved.
        assert choose(**situation(acceptance, linear(40, token), None)) == expected
    # A draft of ten would be all that is needed, and saves 50 nodes: worth its call, or hardly.
    assert choose(**situation(acceptance, linear(40, 0.1), draft))[0] == Plan((1,))
    assert choose(**situation(acceptance, linear(40, 0.1), linear(5.5, 0.0)))[0] == ENUMERATE


def test_a_longer_prompt_makes_no_draft_worth_its_reading() -> None:
    acceptance = accepting(10, lambda s, j, w: 0.8 * w / (w + 12), catalog(4, first=2000, items=20000))
    target, draft = linear(10, 0.01), linear(0.5, 0.04)
    policy: Policy = (Plan((40, 40, 40)), Plan((40, 40)), Plan((40,)), NOTHING)
    gains, chosen = [], []
    for prompt in (20, 100, 200, 300, 400, 480):
        case = situation(acceptance, target, draft, prompt=prompt)
        gains.append(expected_milliseconds((NOTHING,) * 4, **case) - expected_milliseconds(policy, **case))
        chosen.append(drafts(choose(**case)))
    assert gains == sorted(gains, reverse=True)  # the draft reads the prompt as well
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[0]
    assert not chosen[-1]


def test_a_draft_that_pays_only_at_several_depths_together_is_found() -> None:
    trie = catalog(4, first=2000, items=20000)
    acceptance = accepting(
        10, lambda s, j, w: w / (w + (1 if s else 4)) if j == 1 else 0.0, trie, children=2000.0
    )  # after the first depth, few nodes are enough
    # Reading the prompt costs the draft 8 ms; each level it drafts saves about as much of a call.
    case = situation(acceptance, linear(10, 0.02), linear(0.2, 0.1), prompt=80)
    alone = [tuple(Plan((w,)) if s == d else NOTHING for s in range(4)) for d in range(3) for w in GRID]
    nothing = expected_milliseconds((NOTHING,) * 4, **case)
    assert min(expected_milliseconds(policy, **case) for policy in alone) > nothing * (1 - WORTH)
    shapes = [(Plan((width,) * levels),) * 4 for width in GRID for levels in (1, 2, 3)]
    best = min(expected_milliseconds(shape, **case) for shape in shapes)
    assert best < 0.97 * nothing
    policy = choose(**case)
    assert expected_milliseconds(policy, **case) < best
    assert len({plan.widths for plan in policy}) > 2  # every depth has its own


def test_every_level_gets_the_width_that_it_needs() -> None:
    trie = catalog(3, first=2000, items=20000)
    acceptance = accepting(10, lambda s, j, w: w / (w + (6 if j == 1 else 0.3)), trie, children=2000.0)
    case = situation(acceptance, linear(10, 0.02), linear(0.2, 0.001))
    first, second = choose(**case)[0].widths
    assert first > 2 * second
    assert expected_milliseconds((Plan((first, second)), *choose(**case)[1:]), **case) == min(
        expected_milliseconds((Plan((first, width)), *choose(**case)[1:]), **case) for width in GRID
    )


def test_a_large_batch_needs_a_better_draft() -> None:
    trie = catalog(4, first=2000, items=20000)
    target, draft = linear(10, 0.02), linear(1, 0.002)

    def least(batch: int) -> float:
        """The least acceptance at which drafting pays."""
        for chance in np.arange(1, 21) / 20:
            acceptance = accepting(10, lambda s, j, w, chance=chance: chance * w / (w + 6), trie)
            if drafts(choose(**situation(acceptance, target, draft, batch=batch))):
                return float(chance)
        return 2.0

    needed = [least(batch) for batch in (1, 4, 32)]
    assert needed == sorted(needed)
    assert needed[0] < needed[-1]


@given(situations())
@settings(max_examples=40, deadline=None)
def test_what_is_chosen_is_hardly_worse_than_any_one_shape(case: Situation) -> None:
    policy, length = choose(**case), case["acceptance"].length
    assert policy == choose(**case)
    assert len(policy) == length
    assert policy[-1] == NOTHING or drafts(policy)
    cost = expected_milliseconds(policy, **case)
    others: list[Policy] = [(NOTHING,) * length]
    if case["draft"] is not None:
        others += [(Plan((width,) * levels),) * length for width in GRID for levels in range(1, length)]
    assert (
        cost <= min(expected_milliseconds(other, **case) for other in others) / (1 - DOUBT) + LEAST_MS * case["batch"]
    )


def test_the_table_says_what_was_weighed() -> None:
    case = situation(accepting(10, lambda s, j, w: w / (w + 12)), linear(10, 0.01), linear(1, 0.001), batch=2)
    policy = choose(**case)
    table = rationale(policy, **case)
    lines = table.splitlines()
    assert lines[0] == "Expected ms: batch 2, prompt 80, top 10"
    assert lines[1].split() == ["depth", "nothing", "enumerate", "best", "draft", "chosen"]
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "2", "3"]
    for s, line in enumerate(lines[2:5]):
        for plan, text in ((NOTHING, line.split()[1]), (ENUMERATE, line.split()[2])):
            other = (*policy[:s], plan, *policy[s + 1 :])
            assert text == f"{expected_milliseconds(other, **case):.2f}"
        assert f"{expected_milliseconds(policy, **case):.2f} (" in line
    assert lines[5].split()[2:4] == ["-", "-"]  # below the last depth there is nothing to foresee
    alone = rationale((NOTHING,) * 4, **case | {"draft": None})
    assert "draft 1" not in alone
    assert alone.endswith("(nothing)")


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
