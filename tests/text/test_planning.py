"""How much of a draft is sent, by what calls cost and what has passed."""

import numpy as np
import pytest

from specbeam.engines.bundle.facts import LatencyPoint
from specbeam.pools.texts.branches import Branches
from specbeam.runtime.planning.costs import CallCosts
from specbeam.text.planning import SELDOM, ByCost, Call, Spent, first

DEAR, CHEAP = 1.0, 0.001  # milliseconds of one more token; a call of one token takes 1


def costs(token: float) -> CallCosts:
    return CallCosts(
        latency=tuple(LatencyPoint(batch=1, past=0, new=n, milliseconds=1 + token * (n - 1)) for n in (1, 8, 64))
    )


def chain(shares: list[float]) -> Branches:
    n = len(shares)
    return Branches(np.zeros(n, np.int64), np.arange(n) - 1, np.arange(n), np.arange(1, n + 1), np.array(shares))


def played(planner: ByCost, token: float, *, passes: bool, rounds: int = 400) -> list[int]:
    """How much was sent in every round in which drafts of one branch, sure of themselves, pass or do not."""
    sent = []
    for _ in range(rounds):
        looked = planner.look()
        branches = chain([0.9] * 4) if looked else chain([])
        most = planner.most(branches, Call(1, 0, 1))
        branches = first(branches, most)
        engine = (1 + token * most) / 1000
        spent = Spent(engine, 0.0003 if looked else 0.0, 0.0001)
        planner.observe(branches, np.full(len(branches.request), passes), Call(1, 0, 1 + most), 1, spent)
        sent.append(len(branches.request) if looked else -1)
    return sent


def test_drafts_that_pass_are_sent_and_those_that_do_not_are_not() -> None:
    assert set(played(ByCost(costs(CHEAP)), CHEAP, passes=True)[-50:]) == {4}
    failing = played(ByCost(costs(DEAR)), DEAR, passes=False)[-3 * SELDOM :]
    assert set(failing) <= {-1, 0}
    assert failing.count(0) == pytest.approx(3, abs=1)  # it still looks, seldom


def test_dear_tokens_are_sent_where_they_are_likely_alone() -> None:
    planner = ByCost(costs(0.5))
    assert planner.most(chain([1.0, 0.9, 0.02, 0.01]), Call(1, 0, 1)) == 2
    assert planner.most(chain([]), Call(1, 0, 1)) == 0


def test_the_first_branches_are_a_tree() -> None:
    branches = Branches(
        np.array([0, 0, 0, 1, 1]), np.array([-1, 0, -1, -1, 3]), np.arange(5), np.array([1, 2, 1, 1, 2]), np.ones(5)
    )
    cut = first(branches, 2)
    assert cut.request.tolist() == [0, 0, 1, 1]
    assert cut.parent.tolist() == [-1, 0, -1, 2]
    assert cut.token.tolist() == [0, 1, 3, 4]
    assert first(branches, 5) is branches
