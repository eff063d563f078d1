"""Which calls are timed under a budget, in which order, and what is said of the others."""

from math import inf

import numpy as np
import pytest

from specbeam.engines import latency
from specbeam.engines.base import Engine, Float32, ForwardInputs, Int64
from specbeam.engines.bundle.facts import LatencyPoint, ModelFacts
from specbeam.engines.cache import KVCache
from specbeam.engines.latency import BATCHES, PASSES, Size, coarse_first, estimated, measure_latency
from specbeam.runtime.planning.costs import CallCosts

FACTS = ModelFacts(
    architecture="Any", parameters=1, layers=1, kv_heads=1, head_dim=2, vocabulary=50, context=1024
)  # fmt: skip
LARGE = 6.0  # milliseconds a token: that of 600 M parameters on two cores


class Slots(KVCache):
    """A cache that holds nothing but its size."""

    batch, length = 0, 0

    def __init__(self, batch: int, length: int = 0) -> None:
        self.batch, self.length = batch, length

    def copy(self) -> "Slots":
        return Slots(self.batch, self.length)

    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        assert slots is None
        self.batch = len(rows)

    def join(self, other: KVCache) -> None:
        raise NotImplementedError


class Clocked(Engine):
    """An engine whose calls take what a formula says, on a clock of their own."""

    def __init__(self, token_ms: float) -> None:
        super().__init__(columns=1)
        self.token_ms, self.now, self.calls = token_ms, 0.0, list[Size]()

    def milliseconds(self, batch: int, past: int, new: int) -> float:
        tokens = batch * new
        return self.token_ms * (20 + tokens * (1 + (past + new / 2) / 4000) + batch / 4)

    def new_cache(self, batch: int) -> Slots:
        return Slots(batch)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        assert isinstance(cache, Slots)
        batch, new = inputs.input_ids.shape
        assert cache.batch == batch
        self.calls.append((batch, cache.length, new))
        self.now += self.milliseconds(batch, cache.length, new) / 1000
        cache.length += new
        return np.zeros((batch, inputs.logit_rows.shape[1], 1), np.float32)


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> type[Clocked]:
    """The class, on whose engines' clocks calls are timed."""
    engines = list[Clocked]()

    class Heard(Clocked):
        def __init__(self, token_ms: float) -> None:
            super().__init__(token_ms)
            engines.append(self)

    monkeypatch.setattr(latency, "perf_counter", lambda: engines[-1].now)
    return Heard


def grid() -> set[Size]:
    return {
        (batch, past, new)
        for batch in latency.BATCHES
        for past in latency.PAST_TOKENS
        for new in latency.NEW_TOKENS
        if not past or new <= latency.LATER_TOKENS
    }


def size_of(point: LatencyPoint) -> Size:
    return point.batch, point.past, point.new


def test_a_small_model_has_every_call_timed(clocked: type[Clocked]) -> None:
    engine, told = clocked(0.001), list[tuple[int, int]]()
    points = measure_latency(engine, FACTS, lambda *step: told.append(step))
    assert {size_of(point) for point in points} == grid()
    assert not any(point.interpolated for point in points)
    for point in points:
        assert point.milliseconds == pytest.approx(engine.milliseconds(*size_of(point)), abs=1e-4)
    assert told == [(i, PASSES * len(grid())) for i in range(PASSES * len(grid()) + 1)]
    prompts = [size for size in engine.calls if size[0] > 1 and size[1:] in ((0, 80), (0, 400))]
    assert len(prompts) == PASSES * (len(BATCHES) - 1)  # 80 tokens are a call of the grid; no other prompt of a batch


@pytest.mark.parametrize("seconds", [10, 60])
def test_a_large_model_is_timed_within_its_budget(clocked: type[Clocked], seconds: float) -> None:
    engine = clocked(LARGE)
    points = measure_latency(engine, FACTS, lambda done, total: None, None, seconds)
    assert engine.now <= seconds + 2  # what comes before a call that fits: its prompt, at a batch of one
    assert {size_of(point) for point in points} == grid()
    timed = {size_of(point): point.milliseconds for point in points if not point.interpolated}
    assert {(1, 0, 1), (1, 0, 480), (32, 0, 1), (1, 400, 1)} <= timed.keys()  # corners
    assert (32, 0, 480) not in timed  # 90 seconds
    assert max(timed.values()) <= latency.LONGEST_MS
    for point in points:
        assert point.milliseconds == pytest.approx(
            engine.milliseconds(*size_of(point)), rel=0.2 if seconds > 30 else 0.5
        )
    costs = CallCosts(latency=points)
    assert costs.milliseconds(8, 80, 60) == pytest.approx(engine.milliseconds(8, 80, 60), rel=0.25)
    assert costs.milliseconds(1, 0, 100) < costs.milliseconds(8, 0, 100) < costs.milliseconds(32, 0, 100)


def test_more_time_means_more_calls_timed(clocked: type[Clocked]) -> None:
    counts = []
    for seconds in (0.001, 10, 60, 10_000):
        points = measure_latency(clocked(LARGE), FACTS, lambda done, total: None, None, seconds)
        counts.append(sum(not point.interpolated for point in points))
    assert counts[0] == latency.FIRST < counts[1] < counts[2] < counts[3] < len(grid())  # some take too long at all


def test_a_model_of_which_every_call_is_too_long(clocked: type[Clocked]) -> None:
    points = measure_latency(clocked(1000), FACTS, lambda done, total: None)
    assert [size_of(point) for point in points if not point.interpolated] == [(1, 0, 1), (1, 0, 8)]
    assert all(0 < point.milliseconds < inf for point in points)
    CallCosts(latency=points)


def test_corners_come_first_then_what_halves_the_distances() -> None:
    sizes = sorted(grid())
    order = coarse_first(sizes)
    assert sorted(order) == sizes
    ends = {(batch, *rest) for batch in (1, 32) for rest in ((0, 1), (0, 480), (400, 1), (400, 160))}
    assert set(order[:8]) == ends
    places = [order.index((1, 0, new)) for new in (480, 40, 160, 80)]
    assert places == sorted(places)


def test_what_is_interpolated_is_never_out_of_order_with_its_neighbours() -> None:
    known = {(1, 0, 1): 10.0, (1, 0, 480): 100.0, (8, 0, 1): 11.0, (8, 0, 40): 12.0}
    assert 11 <= estimated(known, (8, 0, 20)) <= 12  # though prompts of as many tokens take longer
    assert estimated(known, (1, 0, 480)) == 100
    assert estimated(known, (1, 80, 20)) >= 10
