"""How long a call takes, against batch size, cached and new tokens."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf, log
from statistics import median
from time import perf_counter

import numpy as np

from .base import Engine, ForwardInputs, Int64, causal
from .bundle.facts import LatencyPoint, Limits, ModelFacts
from .cache import KVCache
from .reading import begin

NEW_TOKENS = (1, 8, 20, 40, 80, 160, 320, 480)
LATER_TOKENS = 160  # the most that calls after the prompt's bring
PAST_TOKENS = (0, 80, 400)
BATCHES = (1, 8, 32)
ROWS = 121  # the most rows of logits that are asked for: those of 40 nodes at 3 depths, and the prompt's
PASSES = 4  # over the grid, a call of each size in each
LONG_MS = 500  # longer calls are timed once
FIRST = 2  # calls that are timed whatever they take
LONGEST_MS = 5000  # longer calls are not timed
TIMING_SECONDS = 60  # that the calls of one graph may take, where nothing is said

Size = tuple[int, int, int]  # batch, cached and new tokens


def random_tokens(facts: ModelFacts, past: int, new: int, batch: int) -> Int64:
    """[B, T] the same for the same sizes."""
    return np.random.default_rng(past * 1009 + new).integers(0, facts.vocabulary, (batch, new))


def call(tokens: Int64, past: int, cache: KVCache, rows: int = ROWS) -> ForwardInputs:
    """Prompts [B, T], or as many nodes behind cached prompts of `past` tokens each; the last `rows`.

    The cache may hold more slots than the prompt has tokens: nobody sees those.
    """
    batch, new = tokens.shape
    below, slots = causal(0, new, batch)
    if past:
        below = np.full((batch, new), past)
        slots = np.broadcast_to(np.arange(cache.length, cache.length + new)[:, None], (batch, new, 1)).copy()
    positions = np.full((batch, new), past) if past else below - 1
    last = np.broadcast_to(np.arange(max(0, new - rows), new), (batch, min(new, rows))).copy()
    return ForwardInputs(tokens, positions, below, slots, last)


class Prompts:
    """Caches of prompts to time calls behind: one request's prompt, as often as a call has requests.

    What lies in a cache does not matter to a call's time, and a prompt of every request's own would take far longer
    than the calls that are timed.
    """

    def __init__(self, engine: Engine, facts: ModelFacts, rows: int) -> None:
        self._engine, self._facts, self._rows = engine, facts, rows
        self._one: dict[int, KVCache] = {}  # by tokens
        self._last: tuple[tuple[int, int], KVCache] | None = None  # by batch and tokens: such caches are large

    def prepared(self, batch: int, past: int, new: int) -> Callable[[], object]:
        """A call to be timed; where there is an encoder, one behind nothing is its reading and the decoder's first."""
        tokens = random_tokens(self._facts, past, new, batch)
        if not past and self._engine.start is not None:
            return partial(begin, self._engine, tokens)
        cache = self.cache(batch, past)
        return partial(self._engine.forward, call(tokens, self._slots(past), cache, self._rows), cache)

    def cache(self, batch: int, past: int) -> KVCache:
        """A cache of its own of `past` tokens for each of `batch` requests; nothing is under way on a device."""
        if not past:
            return self._engine.new_cache(batch)
        if self._last is None or self._last[0] != (batch, past):
            self._last = None
            cache = self._of_one(past)
            cache.keep(np.zeros(batch, np.int64))
            self._last = (batch, past), cache
            node, copied = random_tokens(self._facts, past, 1, 1), cache.copy()
            inputs = call(np.repeat(node, batch, axis=0), self._slots(past), copied, self._rows)
            self._engine.forward(inputs, copied)  # waits for the copies
        return self._last[1].copy()

    def _of_one(self, past: int) -> KVCache:
        if past not in self._one:
            self._one[past] = begin(self._engine, random_tokens(self._facts, 0, past, 1), self._rows).cache
        return self._one[past].copy()

    def _slots(self, past: int) -> int:
        """Of the decoder's cache, that a prompt of so many tokens takes."""
        return past if self._engine.start is None else min(past, 1)


def measure_latency(
    engine: Engine,
    facts: ModelFacts,
    progress: Callable[[int, int], None],
    limits: Limits | None = None,
    seconds: float = TIMING_SECONDS,
) -> tuple[LatencyPoint, ...]:
    """Milliseconds of one call over a grid within the model's context, and within `limits`.

    A coarse grid is timed first, then what lies between, while it fits into `seconds`; what does not, and calls that
    would take longer than `LONGEST_MS`, are told by those that were timed, and marked. The grid is gone through several
    times, and the least time of each size kept: what disturbs the machine for some seconds makes no size dearer than
    the next. Long calls are timed once.
    """
    grid = [
        (batch, past, new)
        for batch in BATCHES
        for past in PAST_TOKENS
        for new in NEW_TOKENS
        if past + new <= facts.context and (not past or new <= LATER_TOKENS) and _allowed(limits, batch, past, new)
    ]
    order = coarse_first(grid)
    order = list(dict.fromkeys([*sorted(grid)[:FIRST], *order]))  # the least calls of all say what others may take
    rows = ROWS if limits is None else min(ROWS, limits.max_nodes)
    prompts, least = Prompts(engine, facts, rows), dict[Size, float]()
    begun, total, done, timed = perf_counter(), PASSES * len(order), 0, 0.0

    def fits(size: Size) -> bool:
        passed, needed = 1000 * (perf_counter() - begun), least.get(size) or estimated(least, size)
        before = estimated(least, (1, 0, size[1])) if size[1] else 0.0  # the prompt's
        around = max(passed / timed, 1.0)  # what comes to a call: copies of caches, and a busy machine
        return needed <= LONGEST_MS and passed + around * (needed + before) <= 1000 * seconds

    time_call(engine, facts, *order[0], 0, rows=rows)  # the first of all brings the weights into memory
    for turn in range(PASSES):
        waiting = sorted(size for size in least if least[size] <= LONG_MS) if turn else order.copy()
        while size := next((size for size in waiting if len(least) < FIRST or fits(size)), None):
            progress(done, total)
            done += 1
            waiting.remove(size)
            taken = time_call(engine, facts, *size, 0, rows=rows, prompts=prompts)
            least[size] = min(taken, least.get(size, taken))
            timed += taken
    progress(total, total)
    return tuple(
        LatencyPoint(
            batch=size[0], past=size[1], new=size[2], milliseconds=least.get(size) or estimated(least, size),
            interpolated=size not in least,
        )
        for size in sorted(order)
    )  # fmt: skip


def coarse_first(sizes: Sequence[Size]) -> list[Size]:
    """Corners of the grid first, then what halves the distances, again and again."""
    batches, pasts = (_levels(sorted({size[axis] for size in sizes})) for axis in (0, 1))
    news = {
        curve: _levels(sorted(new for *behind, new in sizes if tuple(behind) == curve))
        for curve in {size[:2] for size in sizes}
    }
    return sorted(sizes, key=lambda size: (batches[size[0]] + pasts[size[1]] + news[size[:2]][size[2]], size))


def _levels(values: Sequence[int]) -> dict[int, int]:
    """0 for the first and the last, 1 for the one in their middle, 2 for those in the middle of halves, ..."""
    found, parts, level = {values[0]: 0, values[-1]: 0}, [(0, len(values) - 1)], 0
    while parts:
        level, halves = level + 1, list[tuple[int, int]]()
        for low, high in parts:
            if high - low > 1:
                middle = (low + high) // 2
                found[values[middle]] = level
                halves += [(low, middle), (middle, high)]
        parts = halves
    return found


def estimated(known: Mapping[Size, float], size: Size) -> float:
    """Milliseconds of a call that was not timed, by those that were: at least a prompt among them.

    By how long prompts with as many tokens in all take, times how much longer than those calls like it take (of the
    same batch behind as many cached tokens; else of the nearest of these); never out of order with calls like it.
    """
    batch, past, new = size
    prompts = dict[int, float]()
    for (b, p, n), ms in sorted(known.items(), reverse=True):
        if not p:
            prompts[b * n] = ms
    tokens = np.array(sorted(prompts), np.float64)
    taken = np.maximum.accumulate([prompts[int(count)] for count in tokens])
    slope = (taken[-1] - taken[-2]) / (tokens[-1] - tokens[-2]) if len(tokens) > 1 else taken[-1] / tokens[-1]

    def line(count: int) -> float:
        return float(np.interp(count, tokens, taken) + max(count - tokens[-1], 0) * slope)

    near = min({s[:2] for s in known}, key=lambda s: (abs(log((past + 1) / (s[1] + 1))), abs(log(batch / s[0]))))
    like = {n: ms for (b, p, n), ms in sorted(known.items()) if (b, p) == near}
    scale = np.interp(new, list(like), [ms / line(near[0] * n) for n, ms in like.items()])
    low, high = 0.0, inf
    if near == (batch, past):
        low = max((ms for n, ms in like.items() if n <= new), default=low)
        high = min((ms for n, ms in like.items() if n >= new), default=high)
    return round(max(low, min(high, float(scale) * line(batch * new))), 4)


def time_call(
    engine: Engine, facts: ModelFacts, batch: int, past: int, new: int, repeats: int = 3, *, rows: int = ROWS,
    prompts: Prompts | None = None,
) -> float:  # fmt: skip
    """Median milliseconds of one call for at most `rows` rows of logits, after one that does not count.

    A long call is timed once.
    """
    prompts, times = prompts or Prompts(engine, facts, rows), list[float]()
    for _ in range(repeats + 1):
        run = prompts.prepared(batch, past, new)
        start = perf_counter()
        run()
        times.append(1000 * (perf_counter() - start))
        if sum(times) > LONG_MS:
            break
    return round(median(times[1:] or times), 4)


def _allowed(limits: Limits | None, batch: int, past: int, new: int) -> bool:
    """Whether an engine takes a prompt of `new` tokens, or one of `past` and then as many nodes."""
    if limits is None:
        return True
    prompt, nodes = (past, new) if past else (new, 0)
    return batch <= limits.max_batch and prompt <= limits.max_prompt and nodes <= limits.max_nodes
