"""Callers: closed loops, whose next request waits for the last answer, and arrivals that wait for nobody."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from time import perf_counter

import numpy as np

from specbeam.runtime.metrics import Estimate, estimate
from specbeam.runtime.types import Float64

RESAMPLES = 1000
RAMP = 0.2  # of a turn: queues fill, batches grow
Ask = Callable[[list[str], int], Awaitable[object]]  # (history, k); raises `Shed` where there are too many


class Shed(Exception):
    """A request was refused, as too many wait."""


@dataclass
class Seen:
    """What callers saw in one turn, once its traffic was under way."""

    start: float  # by perf_counter: from when it counts
    end: float
    latencies: list[float] = field(default_factory=list)  # seconds, of all that were due meanwhile and answered
    answered: int = 0  # meanwhile
    shed: int = 0

    @classmethod
    def beginning(cls, seconds: float) -> "Seen":
        """Traffic that begins now, and counts once a fifth of it is over."""
        now = perf_counter()
        return cls(now + RAMP * seconds, now + seconds)

    @property
    def users_a_second(self) -> float:
        return self.answered / (self.end - self.start)


async def _asked(seen: Seen, ask: Ask, history: list[str], k: int, due: float) -> None:
    """One request; its latency is from when it was due, whenever the caller came to send it."""
    try:
        await ask(history, k)
    except Shed:
        seen.shed += due >= seen.start
        await asyncio.sleep(0.05)
        return
    now = perf_counter()
    seen.answered += seen.start <= now <= seen.end
    if due >= seen.start:
        seen.latencies.append(now - due)


async def closed_loop(ask: Ask, histories: Sequence[list[str]], k: int, callers: int, seconds: float) -> Seen:
    """So many callers for so many seconds."""
    seen, supply = Seen.beginning(seconds), cycle(histories)

    async def caller() -> None:
        while (now := perf_counter()) < seen.end:
            await _asked(seen, ask, next(supply), k, now)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return seen


async def open_loop(
    ask: Ask, histories: Sequence[list[str]], k: int, rate: float, seconds: float, seed: int, waiting: int = 0
) -> Seen:  # fmt: skip
    """Poisson arrivals: `rate` a second, for so many seconds; the same ones for the same rate and seed.

    waiting: requests that come before all others, together.
    """
    gaps = np.random.default_rng(seed).exponential(1 / rate, size=int(2 * rate * seconds) + 100)
    offsets = np.concatenate([np.zeros(waiting), np.cumsum(gaps)])
    start, seen, tasks = perf_counter(), Seen.beginning(seconds), []
    for offset, history in zip(offsets[offsets < seconds].tolist(), cycle(histories), strict=False):
        await asyncio.sleep(max(start + offset - perf_counter(), 0))
        tasks.append(asyncio.create_task(_asked(seen, ask, history, k, start + offset)))
    await asyncio.gather(*tasks)
    return seen


def percentiles(latencies: Sequence[float]) -> dict[str, Estimate]:
    """Milliseconds: p50, p95, p99, and the last over the first, with 95 % intervals over resampled requests."""
    values = 1000 * np.asarray(latencies)
    drawn = values[np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))]
    points, resampled = np.percentile(values, [50, 95, 99]), np.percentile(drawn, [50, 95, 99], axis=1)
    each = zip(("p50", "p95", "p99"), points, resampled, strict=True)
    found = {name: estimate(point, drawn) for name, point, drawn in each}
    return found | {"p99/p50": estimate(points[2] / points[0], resampled[2] / resampled[0])}


def one_at_a_time(service: Float64, load: float, requests: int = 100_000, seed: int = 0) -> float:
    """p99 over p50 of a queue before one server, Poisson arrivals at a share `load` of what it can serve.

    service [n]: seconds that a request takes alone, drawn from with replacement; one value makes it M/D/1. Waiting
    times follow Lindley's recursion.
    """
    rng = np.random.default_rng(seed)
    served = rng.choice(service, requests)
    gaps = rng.exponential(float(service.mean()) / load, requests)
    steps = np.concatenate([[0.0], np.cumsum(served[:-1] - gaps[1:])])
    latencies = steps - np.minimum.accumulate(steps) + served
    p50, p99 = np.percentile(latencies, [50, 99])
    return float(p99 / p50)
