"""What a call of an engine costs, from points measured when the engine was built and the host's work around it."""

from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import NamedTuple

import numpy as np

from ...catalog.files import Frozen
from ...engines.bundle.facts import LatencyPoint
from ..types import Float64, Int64

FAR = 64.0  # how many times the largest measured value the grid is extended to, by straight lines


SIZES = 17  # of calls, by the tokens of all their requests: 1, 2, 4, 8, ...
Sized = tuple[float, ...]  # [SIZES] a number for calls of each size
EVEN: Sized = (1.0,) * SIZES


class Pace(NamedTuple):
    """How many times as long as was believed things take here and now."""

    engine: Sized = EVEN
    host: float = 1.0

    def of_engine(self, tokens: Float64) -> Float64:
        """[...] for calls of so many tokens [...] in all; between two sizes by a straight line."""
        return np.interp(sizes(tokens), np.arange(SIZES), self.engine)


AS_BELIEVED = Pace()


def sizes(tokens: Float64) -> Float64:
    """[...] the size of calls of so many tokens [...], between two sizes a fraction."""
    found: Float64 = np.minimum(np.log2(np.maximum(tokens, 1)), SIZES - 1)
    return found


class CallCosts(Frozen, frozen=True, dict=True):
    """Milliseconds of one call by its batch, cached and new tokens: engine and host.

    Measured points need not form a full grid (those beyond a model's context are never there). Noise is
    smoothed so that more requests, more cached or more new tokens never cost less. Raises `ValueError`
    where there is no point, or a number is out of range.
    """

    latency: tuple[LatencyPoint, ...]
    scale: float = 1.0  # the engine's time as observed in the loop, over its time as measured alone
    host_call_ms: float = 0.0  # what a call costs beyond that: the host's work, and waking the engine up
    host_node_ms: float = 0.0  # and for every node of it

    def __post_init__(self) -> None:
        if not self.latency:
            raise ValueError("got no measured call; expected at least one. Build the engine again to measure it")
        for point in self.latency:
            if min(point.batch, point.new) < 1 or point.past < 0 or not 0 < point.milliseconds < float("inf"):
                raise ValueError(f"got {point}; expected batch and new of 1 or more, and a positive time")
        host = min(self.host_call_ms, self.host_node_ms)
        if not (0 < self.scale < float("inf") and host >= 0 and isfinite(self.host_call_ms + self.host_node_ms)):
            raise ValueError(
                f"got scale {self.scale}, host_call_ms {self.host_call_ms} and host_node_ms {self.host_node_ms}; "
                "expected a positive scale and host times of 0 or more"
            )

    @property
    def most_tokens(self) -> int:
        """New tokens of the largest call that was measured; the times of larger ones are guessed by a line."""
        return max(point.new for point in self.latency)

    def milliseconds(self, batch: float, past: float, new: float, prompt: float = 0.0) -> float:
        """One call of `batch` requests with `past` cached and `new` tokens each.

        prompt: how many of the new tokens are the prompt's; they are no work for the host.
        """
        return float(self.of_calls(*(np.array([float(x)]) for x in (batch, past, new, prompt)))[0])

    def of_calls(self, batch: Float64, past: Float64, new: Float64, prompt: Float64 | float = 0.0) -> Float64:
        """As `milliseconds`, for n calls at once: all [n]."""
        return self.of_engine(batch, past, new) + self.of_host(batch, new, prompt)

    def of_engine(self, batch: Float64, past: Float64, new: Float64) -> Float64:
        """[n] the engine's part of it."""
        milliseconds: Float64 = self.scale * self._grid.at(batch, past, new)
        return milliseconds

    def of_host(self, batch: Float64, new: Float64, prompt: Float64 | float) -> Float64:
        """[n] the host's part of it."""
        return self.host_call_ms + self.host_node_ms * batch * (new - prompt)

    def engine_curves(self, batch: int, past: Float64) -> tuple[Float64, Float64]:
        """Counts of new tokens [n], and the engine's milliseconds [p, n] at each, with `past` [p] cached tokens.

        Between two counts a call's time is a straight line.
        """
        news = self._grid.axes[2]
        places = np.repeat(past, len(news))
        values = self._grid.at(np.full(len(places), float(batch)), places, np.tile(news, len(past)))
        return news, self.scale * values.reshape(len(past), len(news))

    @cached_property
    def _grid(self) -> "_Grid":
        batches, pasts, news = (
            np.array(sorted({getattr(point, name) for point in self.latency}), np.float64)
            for name in ("batch", "past", "new")
        )
        rows = []
        for batch in batches:
            known = [self._curve(batch, past, news) for past in pasts]
            there = np.array([i for i, curve in enumerate(known) if curve is not None])
            nearest = there[np.abs(there[:, None] - np.arange(len(pasts))).argmin(axis=0)]
            rows.append([known[i] for i in nearest])
        values = np.array(rows, np.float64)
        for axis in range(3):
            values = _monotone(values, axis)
        return _Grid.of(batches, pasts, news, values)

    def _curve(self, batch: float, past: float, news: Float64) -> Float64 | None:
        """Milliseconds at every count of new tokens; None where nothing was measured with this batch and past."""
        points = {p.new: p.milliseconds for p in self.latency if (p.batch, p.past) == (batch, past)}
        if not points:
            return None
        new = np.array(sorted(points), np.float64)
        time = np.array([points[int(n)] for n in new])
        beyond: Float64 = np.interp(news, new, time) + np.maximum(news - new[-1], 0) * _slope(new, time)
        return beyond


class BatchCosts:
    """What calls of one batch cost, behind each of p counts of cached tokens.

    A call's time is split into what it takes whoever has part in it, and what each request adds. One request alone
    bears it all.
    """

    def __init__(self, costs: CallCosts, batch: int, past: Float64, pace: Pace = AS_BELIEVED) -> None:
        """past [p]."""
        self.most_tokens = costs.most_tokens
        self._new, one = _at_pace(costs, 1, past, pace)
        many = one if batch == 1 else np.maximum(_at_pace(costs, batch, past, pace)[1], one)
        each = one if batch == 1 else (many - one) / (batch - 1)
        self._curves = np.stack([one - each, each])  # [2, p, n]
        host = pace.host * costs.host_call_ms
        self._host = np.array((0.0, host) if batch == 1 else (host, 0.0))
        self._host_node = pace.host * costs.host_node_ms

    def __call__(self, place: Int64 | int, new: Float64, prompt: Float64 | float = 0.0) -> Float64:
        """[2, ...] milliseconds of calls behind the cached tokens at `place` [...] with `new` [...] tokens a request,
        of which `prompt` are no work for the host: what they take at all, and what they take for each request."""
        where = np.interp(new, self._new, np.arange(len(self._new)))
        lower = np.minimum(where.astype(np.int64), len(self._new) - 2)
        part = where - lower
        curves = self._curves.reshape(2, -1)
        lower = lower + place * len(self._new)
        milliseconds = curves[:, lower] * (1 - part) + curves[:, lower + 1] * part
        milliseconds += self._host.reshape(2, *(1 for _ in range(part.ndim)))
        milliseconds[1] += self._host_node * (new - prompt)
        return milliseconds


def _at_pace(costs: CallCosts, batch: int, past: Float64, pace: Pace) -> tuple[Float64, Float64]:
    """As `CallCosts.engine_curves`, at a pace; more tokens never take less."""
    news, curves = costs.engine_curves(batch, past)
    paced: Float64 = np.maximum.accumulate(curves * pace.of_engine(batch * news), axis=1)
    return news, paced


def fit_nonnegative(work: Float64, time: Float64) -> Float64:
    """Costs [p] of units of work, none negative, that explain times best: work [n, p], time [n], both above 0.

    Least squares of relative errors, so that short runs count as much as long ones. With few unknowns the best
    is the best of the unconstrained fits of all subsets of them. Raises `ValueError` where nothing was measured.
    """
    if not len(work) == len(time) > 0 or not (time > 0).all():
        raise ValueError(f"got {len(work)} runs and times {time}; expected as many, and positive times")
    relative, one = work / time[:, None], np.ones(len(time))
    best, least = np.zeros(work.shape[1]), float(len(time))
    for chosen in range(1, 2 ** work.shape[1]):
        columns = np.flatnonzero([chosen >> i & 1 for i in range(work.shape[1])])
        costs = np.zeros(work.shape[1])
        costs[columns] = np.linalg.lstsq(relative[:, columns], one)[0]
        error = float(((relative @ costs - one) ** 2).sum())
        if (costs >= 0).all() and error < least:
            best, least = costs, error
    return best


@dataclass(frozen=True, eq=False)
class _Grid:
    """Trilinear interpolation over a full grid that grows along all of its axes."""

    axes: tuple[Float64, Float64, Float64]  # batch, past, new: at least two values each
    cells: Float64  # [cells, 8] values at the corners of every cell; the last axis changes fastest

    @classmethod
    def of(cls, batches: Float64, pasts: Float64, news: Float64, values: Float64) -> "_Grid":
        """values [batches, pasts, news], growing along all axes; extended far beyond its end by straight lines."""
        first, last = values[..., :1], values[..., -1:]
        slopes = np.apply_along_axis(lambda time: _slope(news, time), 2, values)[..., None]
        values = np.concatenate([values, last + slopes * (FAR - 1) * news[-1]], axis=2)
        if len(batches) > 1:
            slope = (values[-1] - values[-2]) / (batches[-1] - batches[-2])
        else:  # as if its time above that of the smallest call were that of tokens
            slope = (values[0] - first[0]) / batches[0]
        values = np.concatenate([values, (values[-1] + slope * (FAR - 1) * batches[-1])[None]])
        further = max(pasts[-1], 1.0) * FAR
        slope = (values[:, -1] - values[:, -2]) / (pasts[-1] - pasts[-2]) if len(pasts) > 1 else 0 * values[:, -1]
        values = np.concatenate([values, (values[:, -1] + slope * (further - pasts[-1]))[:, None]], axis=1)
        for axis in range(3):  # lines that cross beyond the measured
            values = np.maximum.accumulate(values, axis=axis)
        axes = np.append(batches, FAR * batches[-1]), np.append(pasts, further), np.append(news, FAR * news[-1])
        lower, upper = slice(None, -1), slice(1, None)
        corners = [values[b, p, n] for b in (lower, upper) for p in (lower, upper) for n in (lower, upper)]
        return cls(axes, np.stack(corners, axis=-1).reshape(-1, 8))

    def at(self, batch: Float64, past: Float64, new: Float64) -> Float64:
        """Values [n] at n places; what lies outside the grid is moved to its border."""
        (b, b_part), (p, p_part), (n, n_part) = (
            _locate(x, axis) for x, axis in zip((batch, past, new), self.axes, strict=True)
        )
        corners = self.cells[(b * (len(self.axes[1]) - 1) + p) * (len(self.axes[2]) - 1) + n]
        corners = corners[:, :4] + (corners[:, 4:] - corners[:, :4]) * b_part[:, None]
        corners = corners[:, :2] + (corners[:, 2:] - corners[:, :2]) * p_part[:, None]
        value: Float64 = corners[:, 0] + (corners[:, 1] - corners[:, 0]) * n_part
        return value


def _locate(x: Float64, axis: Float64) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], Float64]:
    """The interval of `axis` that each x falls into, and how far into it (0 to 1)."""
    place = np.interp(x, axis, np.arange(len(axis)))
    interval = np.minimum(place.astype(np.int64), len(axis) - 2)
    return interval, place - interval


def _slope(new: Float64, time: Float64) -> float:
    """Milliseconds a token over the upper half of what was measured; 0 where there is one point only."""
    if len(new) < 2:
        return 0.0
    half = min(int(np.searchsorted(new, new[-1] / 2)), len(new) - 2)
    return max(0.0, float((time[-1] - time[half]) / (new[-1] - new[half])))


def _monotone(values: Float64, axis: int) -> Float64:
    """The mean of the least growing values above and the greatest below: what grows already stays as it is."""
    above = np.maximum.accumulate(values, axis=axis)
    below = np.flip(np.minimum.accumulate(np.flip(values, axis), axis=axis), axis)
    return (above + below) / 2
