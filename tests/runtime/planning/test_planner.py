"""The planner: its choices against common sense, and how it follows the rounds of the loop."""

from typing import Unpack

import numpy as np
import pytest
from hypothesis import given, settings

from planner_cases import drafts, expected_milliseconds
from planning_cases import accepting, catalog, linear, situation, situations
from specbeam.runtime.planning.acceptance import GRID, Acceptance
from specbeam.runtime.planning.draft_shapes import FURTHER
from specbeam.runtime.planning.forecast import WORTH, Forecast
from specbeam.runtime.planning.planner import Planner
from specbeam.runtime.planning.plans import ENUMERATE, NOTHING, Plan, Policy, Situation
from specbeam.runtime.planning.rationale import rationale


def choose(**case: Unpack[Situation]) -> Policy:
    """What a planner that knows this decides, for this very batch and prompt."""
    planner = Planner(
        case["target"], case["draft"], case["acceptance"], shared_prefix=case["shared_prefix"], tuned=True
    )
    return planner._made((case["batch"], case["prompt"], case["width"])).policy


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
        assert choose(**situation(bad, linear(10, 0.01), draft))[0] == ENUMERATE
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
    assert choose(**situation(acceptance, linear(40, 0.1), draft))[0] == Plan((6,))
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


def test_further_levels_get_fewer_nodes_where_fewer_are_enough() -> None:
    trie = catalog(3, first=2000, items=20000)
    acceptance = accepting(10, lambda s, j, w: w / (w + (6 if j == 1 else 0.1)), trie, children=2000.0)
    first, second = choose(**situation(acceptance, linear(10, 0.05), linear(0.2, 0.01)))[0].widths
    assert second == np.ceil(min(FURTHER) * first)


def test_long_identifiers_are_planned_for_with_few_states() -> None:
    trie = catalog(32, first=2000, items=3000)
    case = situation(Acceptance(trie), linear(10, 0.01), linear(0.5, 0.001))
    forecast = Forecast(**case)
    policy, outlook = forecast.best()
    assert len(policy) == 32
    assert drafts(policy)
    assert outlook.milliseconds < outlook.plain
    assert forecast.of(policy) == outlook
    known = case["acceptance"].estimates(10)
    assert known.complete.size < 32 * 9 * 20  # not every pair of depths


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
    forecast, length = Forecast(**case), case["acceptance"].length
    policy, outlook = forecast.best()
    assert (policy, outlook) == Forecast(**case).best()
    assert len(policy) == length
    assert forecast.of(policy).milliseconds == pytest.approx(outlook.milliseconds)
    others: list[Policy] = [(NOTHING,) * length]
    if case["draft"] is not None:
        widths = {w for w in GRID if case["width"] / 2 <= w <= max(8 * case["width"], 16)}
        others += [(Plan((width,) * levels),) * length for width in widths for levels in range(1, length)]
    trusted = 2.0 * case["target"].most_tokens
    least = min(
        expected_milliseconds(other, **case)
        for other in others
        if case["prompt"] + case["width"] + sum(other[0].widths) < trusted
    )
    assert outlook.milliseconds <= least / (1 - WORTH) ** length + 1e-9


def test_the_table_says_what_was_weighed() -> None:
    case = situation(accepting(10, lambda s, j, w: w / (w + 12)), linear(10, 0.01), linear(1, 0.001), batch=2)
    policy = choose(**case)
    lines = rationale(policy, case).splitlines()
    assert lines[0] == "Expected ms from each depth on: batch 2, prompt 80, top 10"
    assert lines[1].split() == ["depth", "nothing", "enumerate", "best", "draft", "chosen"]
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "2", "3"]
    for plan, text in ((NOTHING, lines[2].split()[1]), (ENUMERATE, lines[2].split()[2])):
        assert text == f"{expected_milliseconds((plan, *policy[1:]), **case):.2f}"
    assert f"{expected_milliseconds(policy, **case):.2f} (" in lines[2]
    assert lines[5].split()[2:4] == ["-", "-"]  # below the last depth there is nothing to foresee
    alone = rationale((NOTHING,) * 4, case | {"draft": None})
    assert "draft 1" not in alone
    assert alone.endswith("(nothing)")
