"""How long a call takes, against batch size, cached and new tokens."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np

from .base import Engine, ForwardInputs, Int64, causal
from .bundle.facts import LatencyPoint, Limits, ModelFacts
from .cache import KVCache

NEW_TOKENS = (1, 8, 20, 40, 80, 160, 320, 480)
LATER_TOKENS = 160  # the most that calls after the prompt's bring
PAST_TOKENS = (0, 80, 400)
BATCHES = (1, 8, 32)
ROWS = 121  # the most rows of logits that are asked for: those of 40 nodes at 3 depths, and the prompt's
PASSES = 4  # over the grid, a call of each size in each
LONG_MS = 500  # longer calls are timed once
LONGEST_MS = 5000  # beyond a call this long, longer ones are not timed


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


def measure_latency(
    engine: Engine, facts: ModelFacts, progress: Callable[[int, int], None], limits: Limits | None = None
) -> tuple[LatencyPoint, ...]:
    """Milliseconds of one call over a grid within the model's context, and within `limits`.

    The grid is gone through several times, and the least time of each size kept: what disturbs the machine for some
    seconds makes no size dearer than the next. Long calls are timed once.
    """
    grid = [
        (batch, past, new)
        for batch in BATCHES
        for past in PAST_TOKENS
        for new in NEW_TOKENS
        if past + new <= facts.context and (not past or new <= LATER_TOKENS) and _allowed(limits, batch, past, new)
    ]
    rows = ROWS if limits is None else min(ROWS, limits.max_nodes)
    least: dict[tuple[int, int, int], float] = {}
    for turn in range(PASSES):
        for done, (batch, past, new) in enumerate(grid):
            progress(turn * len(grid) + done, PASSES * len(grid))
            size = batch, past, new
            smaller = max((ms for (b, p, n), ms in least.items() if (b, p) == (batch, past) and n < new), default=0.0)
            if smaller > LONGEST_MS or least.get(size, 0.0) > LONG_MS:
                continue
            taken = time_call(engine, facts, batch, past, new, 0, rows=rows)
            least[size] = min(taken, least.get(size, taken))
    progress(PASSES * len(grid), PASSES * len(grid))
    return tuple(
        LatencyPoint(batch=batch, past=past, new=new, milliseconds=ms) for (batch, past, new), ms in least.items()
    )


def time_call(
    engine: Engine, facts: ModelFacts, batch: int, past: int, new: int, repeats: int = 3, *, rows: int = ROWS
) -> float:
    """Median milliseconds of one call for at most `rows` rows of logits, after one that does not count.

    A long call is timed once.
    """
    times: list[float] = []
    for _ in range(repeats + 1):
        cache = engine.new_cache(batch)
        if past:
            engine.forward(call(random_tokens(facts, 0, past, batch), 0, cache, rows), cache)
        inputs = call(random_tokens(facts, past, new, batch), past, cache, rows)
        start = perf_counter()
        engine.forward(inputs, cache)
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
