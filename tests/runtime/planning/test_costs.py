"""The cost of calls: what was measured, what lies between and beyond, and the host's share."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specbeam.engines.bundle.facts import LatencyPoint
from specbeam.runtime.planning.costs import CallCosts, fit_nonnegative

GRID = [(b, p, n) for b in (1, 8) for p in (0, 80, 200) for n in (1, 8, 20, 40, 80, 120, 160, 240)]


def point(batch: int, past: int, new: int, milliseconds: float) -> LatencyPoint:
    return LatencyPoint(batch=batch, past=past, new=new, milliseconds=milliseconds)


def straight(batch: float, past: float, new: float) -> float:
    """A call whose time grows along straight lines."""
    return 2 + 0.05 * batch * new + 0.001 * batch * past


def measured(context: int = 10**6) -> CallCosts:
    return CallCosts(latency=tuple(point(*at, straight(*at)) for at in GRID if at[1] + at[2] <= context))


@given(batch=st.floats(1, 200), past=st.floats(0, 5000), new=st.floats(1, 5000))
def test_straight_lines_are_met_between_and_beyond_the_points(batch: float, past: float, new: float) -> None:
    assert measured().milliseconds(batch, past, new) == pytest.approx(straight(batch, past, new), rel=1e-9)
    assert measured().most_tokens == 240


@given(batch=st.floats(1, 64), past=st.floats(0, 200), new=st.floats(1, 2000))
def test_points_beyond_the_context_are_not_needed(batch: float, past: float, new: float) -> None:
    assert measured(context=256).milliseconds(batch, past, new) == pytest.approx(straight(batch, past, new), rel=1e-9)


def test_a_measured_point_is_met_where_times_bend() -> None:
    times = {1: 1.0, 8: 1.0, 20: 3.0, 40: 3.5}
    costs = CallCosts(latency=tuple(point(1, 0, new, time) for new, time in times.items()))
    assert [costs.milliseconds(1, 0, new) for new in times] == pytest.approx(list(times.values()))
    assert costs.milliseconds(1, 0, 14) == pytest.approx(2.0)
    assert costs.milliseconds(1, 0, 0.1) == pytest.approx(1.0)  # the smallest call is the cheapest
    assert costs.milliseconds(1, 0, 60) == pytest.approx(4.0)  # 0.5 ms for 20 tokens, as in the upper half
    assert costs.milliseconds(1, 500, 14) == pytest.approx(2.0)  # nothing is known of cached tokens


def test_one_batch_size_only_says_what_tokens_cost() -> None:
    costs = CallCosts(latency=(point(2, 0, 1, 5.0), point(2, 0, 11, 15.0)))
    assert costs.milliseconds(4, 0, 1) == pytest.approx(5.0)
    assert costs.milliseconds(4, 0, 11) == pytest.approx(25.0)  # twice the requests, twice the 10 ms above the least
    assert costs.milliseconds(1, 0, 11) == pytest.approx(15.0)  # never measured: as the smallest that was


def test_a_single_point_is_a_constant() -> None:
    costs = CallCosts(latency=(point(1, 0, 10, 3.0),))
    assert costs.milliseconds(1, 0, 1) == costs.milliseconds(1, 99, 1000) == costs.milliseconds(9, 0, 10) == 3.0


def test_gaps_are_filled_from_the_nearest_row() -> None:
    costs = CallCosts(
        latency=(point(1, 0, 1, 1.0), point(1, 0, 9, 9.0), point(1, 50, 1, 2.0), point(8, 0, 1, 4.0))
    )  # nothing for (8, 50), one point for (1, 50)
    assert costs.milliseconds(8, 50, 1) == pytest.approx(4.0)
    assert costs.milliseconds(1, 50, 1) == pytest.approx(2.0)
    assert costs.milliseconds(8, 50, 9) >= costs.milliseconds(8, 0, 9) >= costs.milliseconds(1, 0, 9) > 0


@given(
    times=st.lists(st.floats(0.01, 100), min_size=len(GRID), max_size=len(GRID)),
    left=st.sets(st.sampled_from(GRID), min_size=1),
    a=st.tuples(st.floats(1, 80), st.floats(0, 900), st.floats(1, 9000)),
    b=st.tuples(st.floats(1, 80), st.floats(0, 900), st.floats(1, 9000)),
)
def test_more_never_costs_less_whatever_was_measured(
    times: list[float], left: set[tuple[int, int, int]], a: tuple[float, ...], b: tuple[float, ...]
) -> None:
    points = (point(*at, time) for at, time in zip(GRID, times, strict=True) if at in left)
    costs = CallCosts(latency=tuple(points), host_node_ms=0.01)
    low, high = map(min, a, b), map(max, a, b)
    cheap, dear = costs.milliseconds(*low), costs.milliseconds(*high)
    assert 0 < cheap <= dear * (1 + 1e-9) < float("inf")


def test_noise_is_shared_out_on_both_sides() -> None:
    costs = CallCosts(latency=(point(1, 0, 1, 2.0), point(1, 0, 10, 4.0), point(1, 0, 20, 3.0), point(1, 0, 30, 9.0)))
    assert [costs.milliseconds(1, 0, n) for n in (1, 10, 20, 30)] == pytest.approx([2.0, 3.5, 3.5, 9.0])


def test_scale_is_the_engine_s_and_the_host_s_work_comes_on_top() -> None:
    latency = measured().latency
    costs = CallCosts(latency=latency, scale=1.5, host_call_ms=0.7, host_node_ms=0.01)
    assert costs.milliseconds(4, 0, 100, prompt=80) == pytest.approx(1.5 * straight(4, 0, 100) + 0.7 + 0.01 * 4 * 20)
    assert costs.milliseconds(4, 0, 100) == pytest.approx(1.5 * straight(4, 0, 100) + 0.7 + 0.01 * 4 * 100)


def test_many_calls_at_once_are_the_same_calls() -> None:
    rng = np.random.default_rng(0)
    costs = CallCosts(latency=measured(256).latency, host_node_ms=0.003)
    batch, past, new = rng.uniform(1, 40, 50), rng.uniform(0, 300, 50), rng.uniform(1, 400, 50)
    one_by_one = [costs.milliseconds(*call) for call in zip(batch, past, new, strict=True)]
    np.testing.assert_array_equal(costs.of_calls(batch, past, new), one_by_one)


def test_costs_are_a_file_that_knows_its_keys() -> None:
    costs = CallCosts(latency=measured().latency, scale=1.2)
    costs.milliseconds(1, 0, 1)
    assert msgspec.json.decode(msgspec.json.encode(costs), type=CallCosts) == costs
    with pytest.raises(msgspec.ValidationError, match="hosts"):
        msgspec.json.decode(b'{"latency": [], "hosts": 1}', type=CallCosts)
    with pytest.raises(msgspec.ValidationError, match="no measured call"):
        msgspec.json.decode(b'{"latency": []}', type=CallCosts)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no measured call"):
        CallCosts(latency=())
    for bad in (point(0, 0, 1, 1.0), point(1, -1, 1, 1.0), point(1, 0, 0, 1.0), point(1, 0, 1, 0.0)):
        with pytest.raises(ValueError, match="expected batch and new"):
            CallCosts(latency=(bad,))
    with pytest.raises(ValueError, match="expected batch and new"):
        CallCosts(latency=(point(1, 0, 1, float("nan")),))
    good = (point(1, 0, 1, 1.0),)
    for scale, call, node in ((0.0, 0.0, 0.0), (float("nan"), 0.0, 0.0), (1.0, -1.0, 0.0), (1.0, 0.0, float("inf"))):
        with pytest.raises(ValueError, match="expected a positive scale"):
            CallCosts(latency=good, scale=scale, host_call_ms=call, host_node_ms=node)


def test_what_work_costs_is_found_again() -> None:
    work = np.array([[4, 60, 1], [4, 480, 1], [10, 900, 1], [2, 3, 1], [7, 20, 1]], float)
    assert fit_nonnegative(work, work @ [0.7, 0.01, 0.2]) == pytest.approx([0.7, 0.01, 0.2])
    assert fit_nonnegative(work, work @ [0.7, 0, 0.2]) == pytest.approx([0.7, 0, 0.2])
    assert fit_nonnegative(np.zeros((2, 2)), np.ones(2)).tolist() == [0, 0]
    for work, time in ((np.ones((0, 2)), np.ones(0)), (np.ones((2, 1)), np.ones(1)), (np.ones((1, 1)), np.zeros(1))):
        with pytest.raises(ValueError, match="expected as many, and positive"):
            fit_nonnegative(work, time)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99), st.floats(0.01, 1)), min_size=1, max_size=8))
def test_no_other_costs_of_no_negative_work_fit_better(runs: list[tuple[int, int, float]]) -> None:
    calls, nodes, time = np.array(runs).T
    best = fit_nonnegative(np.stack([calls, nodes], axis=1), time)

    def error(call: float, node: float) -> float:
        return float((((call * calls + node * nodes) / time - 1) ** 2).sum())

    assert min(best) >= 0
    for scale in (0.0, 0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        for call, node in ((best[0] * scale, best[1]), (best[0], best[1] * scale), (best[0] + scale, best[1]),
                           (best[0], best[1] + scale), (best[0] * scale, best[1] + scale)):  # fmt: skip
            assert error(*best) <= error(call, node) * (1 + 1e-6) + 1e-6
