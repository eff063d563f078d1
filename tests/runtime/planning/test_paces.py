"""How long calls really take, by their size."""

import numpy as np
import pytest

from planning_cases import linear, priced
from specbeam.runtime.planning.costs import EVEN, SIZES, BatchCosts, Pace
from specbeam.runtime.planning.paces import FEWEST, REMEMBERED, SLOWEST_HOST, PaceKeeper, Work
from specbeam.runtime.planning.plans import Paces
from specbeam.runtime.stats import Call

COSTS = priced(lambda batch, past, new: 2 + 0.1 * batch * new, host_call_ms=0.5)


def calls(times: float, *news: int, role: str = "target", batch: int = 1) -> list[Call]:
    """Calls that take so many times what is believed of them."""
    believed = [COSTS.milliseconds(batch, 80, n) - COSTS.host_call_ms for n in news]
    return [Call(role, batch, 80, n, 0, times * each / 1000) for n, each in zip(news, believed, strict=True)]


def seen(keeper: PaceKeeper, *batches: list[Call]) -> Paces:
    for batch in batches:
        keeper.saw(keeper.work(batch), sum(1000 * call.seconds for call in batch) + 0.5 * len(batch), None)
    return keeper.paces


def test_every_size_has_a_pace_and_those_between_what_lies_between() -> None:
    keeper = PaceKeeper(COSTS, None)
    assert seen(keeper, calls(3.0, 4)).target == EVEN  # one batch says nothing
    paces = seen(keeper, *FEWEST * [[*calls(3.0, 4), *calls(1.0, 64)]])
    assert paces.target == pytest.approx((3, 3, 3, 2.5, 2, 1.5, *(1.0,) * (SIZES - 6)))
    assert paces.draft == EVEN
    assert paces.host == pytest.approx(1.0)


def test_requests_of_a_batch_make_its_calls_larger() -> None:
    keeper = PaceKeeper(COSTS, None)
    paces = seen(keeper, *FEWEST * [[*calls(2.0, 1), *calls(1.0, 1, batch=8)]])
    assert paces.target[:4] == pytest.approx((2, 5 / 3, 4 / 3, 1))


def test_a_batch_that_was_disturbed_says_nothing_and_what_is_long_ago_is_forgotten() -> None:
    keeper = PaceKeeper(COSTS, COSTS)
    assert seen(keeper, *4 * [calls(1.0, 8)], calls(50.0, 8)).target[3] == pytest.approx(1.0)
    assert seen(keeper, *REMEMBERED * [calls(2.0, 8)]).target[3] == pytest.approx(2.0)


def test_the_host_is_at_most_so_slow_and_counts_for_drafts_alone() -> None:
    keeper = PaceKeeper(COSTS, COSTS)
    batch = [*calls(1.0, 8), *calls(1.0, 8, role="draft")]
    work = keeper.work(batch)
    engines = sum(1000 * call.seconds for call in batch)
    keeper.saw(work, engines + 100, None)
    assert keeper.paces.host == SLOWEST_HOST
    assert work.at(keeper.paces) == pytest.approx(engines + 0.5 + 0.5 * SLOWEST_HOST)


def test_plain_batches_tell_what_plain_batches_take() -> None:
    keeper = PaceKeeper(COSTS, None)
    foreseen = keeper.work(calls(0.0, 8))
    for _ in range(3):
        keeper.saw(keeper.work(calls(1.0, 8, 8)), 10.0, foreseen)
    assert keeper.plain == pytest.approx(2.0)
    assert keeper.work([]) == Work({})


def test_curves_at_a_pace_still_grow() -> None:
    pace = Pace((5.0, *(0.1,) * (SIZES - 1)))
    new = np.array([[1.0, 2.0, 8.0, 40.0]])
    for batch in (1, 8):
        call, each = BatchCosts(linear(3, 0.2), batch, np.array([80.0]), pace)(0, new)
        total = (call + batch * each)[0]
        assert (np.diff(total) >= 0).all()
        assert (np.diff(each[0]) >= -1e-9).all()
