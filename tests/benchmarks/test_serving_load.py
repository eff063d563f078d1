"""Traffic counts what it saw, and the queue that it is compared with is one."""

import asyncio

import numpy as np
import pytest

from benchmarks.serving.traffic import Shed, closed_loop, one_at_a_time, open_loop, percentiles

HISTORIES = [["a"], ["b"], ["c"]]


def naive_queue(service: np.ndarray, load: float, requests: int) -> float:
    """p99 / p50, request by request."""
    rng = np.random.default_rng(0)
    served = rng.choice(service, requests)
    gaps = rng.exponential(float(service.mean()) / load, requests)
    now = free = 0.0
    latencies = []
    for number, (gap, seconds) in enumerate(zip(gaps, served, strict=True)):
        now += gap if number else 0
        free = max(free, now) + seconds
        latencies.append(free - now)
    p50, p99 = np.percentile(latencies, [50, 99])
    return float(p99 / p50)


@pytest.mark.parametrize("service", [np.array([0.5]), np.array([0.1, 0.2, 0.9])])
@pytest.mark.parametrize("load", [0.01, 0.75, 0.95])
def test_one_at_a_time_is_a_queue_before_one_server(service: np.ndarray, load: float) -> None:
    assert one_at_a_time(service, load, requests=3000) == pytest.approx(naive_queue(service, load, 3000))


def test_a_queue_that_nobody_else_stands_in_is_no_wait() -> None:
    assert one_at_a_time(np.array([0.5]), 1e-6, requests=1000) == pytest.approx(1, abs=1e-6)


def test_a_closed_loop_has_as_many_callers_as_it_says_and_counts_what_is_refused() -> None:
    asked, now, most = list[tuple[str, int]](), 0, 0

    async def ask(history: list[str], k: int) -> None:
        nonlocal now, most
        now, number = now + 1, len(asked)
        most = max(most, now)
        asked.append((history[0], k))
        await asyncio.sleep(0.001)
        now -= 1
        if number % 5 == 4:
            raise Shed

    seen = asyncio.run(closed_loop(ask, HISTORIES, 7, callers=3, seconds=0.5))
    assert most == 3
    assert {each for each, _ in asked} == {"a", "b", "c"}
    assert {k for _, k in asked} == {7}
    assert 0 < seen.shed < len(asked)
    assert 0 < seen.answered <= len(seen.latencies) + 3
    assert len(seen.latencies) + seen.shed <= len(asked)  # those of its beginning are left out


def test_arrivals_wait_for_nobody_and_are_the_same_again() -> None:
    counts = []
    for _ in range(2):
        pending, most = 0, 0

        async def ask(history: list[str], k: int) -> None:
            nonlocal pending, most
            pending += 1
            most = max(most, pending)
            await asyncio.sleep(0.2)
            pending -= 1

        seen = asyncio.run(open_loop(ask, HISTORIES, 7, rate=200, seconds=0.5, seed=3, waiting=4))
        assert most > 8
        assert pending == 0
        counts.append(len(seen.latencies))
    assert counts[0] == counts[1] > 40
    assert min(seen.latencies) >= 0.2


def test_percentiles_lie_within_their_intervals() -> None:
    found = percentiles(np.linspace(0.001, 0.1, 1000).tolist())
    assert found["p50"].value == pytest.approx(50.5, abs=0.1)
    assert found["p99"].value == pytest.approx(99.0, abs=0.1)
    for each in found.values():
        assert each.low <= each.value <= each.high
