"""Situations to plan for: catalogs, costs and acceptance as a test wants them."""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from specbeam.catalog.trie import ItemTrie
from specbeam.engines.bundle.facts import LatencyPoint
from specbeam.runtime.planning.acceptance import (
    GRID,
    Acceptance,
    AcceptanceCounts,
    DepthCounts,
    LevelCounts,
    WidthCounts,
)
from specbeam.runtime.planning.costs import CallCosts
from specbeam.runtime.planning.plans import ENUMERATE, NOTHING, Plan, Situation

NEW = (1, 8, 20, 40, 80, 120, 160, 240, 480)
MANY = 10**9  # counts so many that the belief says nothing beside them


def priced(cost: Callable[[int, int, int], float], **host: float) -> CallCosts:
    """Costs measured where calls take `cost(batch, past, new)`."""
    grid = [(b, p, n) for b in (1, 8, 32) for p in (0, 80, 200, 1000) for n in NEW]
    return CallCosts(
        latency=tuple(LatencyPoint(batch=b, past=p, new=n, milliseconds=cost(b, p, n)) for b, p, n in grid), **host
    )


def linear(call: float, token: float, past: float = 0.0) -> CallCosts:
    """A fixed time for a call, and one for every token of every request."""
    return priced(lambda b, p, n: call + token * b * n + past * b * p)


def catalog(length: int = 4, first: int = 60, items: int = 5000) -> ItemTrie:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 60, (items, length))
    codes[:, 0] = rng.permutation(np.arange(items) % first)
    return ItemTrie.build(10 + 60 * np.arange(length) + codes)


TRIE = catalog()


def accepting(
    k: int,
    chance: Callable[[int, int, int], float],
    trie: ItemTrie = TRIE,
    *,
    children: float = 80.0,
    idle: float = 0.0,
) -> Acceptance:
    """Counts that say: level j of a draft from s of width w is complete with chance(s, j, w), else it lacks half.

    children: of a frontier; idle: the chance that a depth needs no scores.
    """
    levels = []
    for s in range(trie.length):
        for j in range(1, trie.length - s):
            complete = [round(MANY * chance(s, j, w)) for w in GRID]
            found = tuple(k * (good + (MANY - good) // 2) for good in complete)
            every = (MANY,) * len(GRID)
            needed = (k * MANY,) * len(GRID)
            levels.append(
                LevelCounts(start=s, level=j, trials=every, complete=tuple(complete), needed=needed, found=found)
            )
    depth = DepthCounts(requests=MANY, idle=round(idle * MANY), needed=k * MANY, children=round(children * MANY))
    width = WidthCounts(k=k, depths=(depth,) * trie.length, levels=tuple(levels))
    return Acceptance.from_snapshot(AcceptanceCounts(grid=GRID, widths=(width,)), trie)


def situation(
    acceptance: Acceptance, target: CallCosts, draft: CallCosts | None, *, batch: int = 1, prompt: int = 80,
    width: int = 10, shared_prefix: int = 0,
) -> Situation:  # fmt: skip
    return Situation(
        batch=batch, prompt=prompt, width=width, shared_prefix=shared_prefix, target=target, draft=draft,
        acceptance=acceptance,
    )  # fmt: skip


WIDTHS = st.lists(st.sampled_from([1, 4, 16, 30, 40, 100]), max_size=4).map(tuple)
PLANS = st.one_of(st.just(NOTHING), st.just(ENUMERATE), WIDTHS.map(Plan))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    trie = catalog(draw(st.integers(1, 5)), first=int(rng.integers(1, 60)), items=int(rng.integers(1, 3000)))
    table = rng.uniform(0, 1, (6, 6))
    acceptance = draw(st.sampled_from([
        Acceptance(trie), accepting(10, lambda s, j, w: float(table[s, j]) * w / (w + 9), trie),
    ]))  # fmt: skip
    fixed, token = 10 ** rng.uniform(-2, 2, 2), 10 ** rng.uniform(-4, 0, 2)
    target, draft = linear(fixed[0], token[0], 1e-4), linear(fixed[1] / 10, token[1] / 10)
    return situation(
        acceptance, target, draw(st.sampled_from([draft, draft, None])), batch=draw(st.sampled_from([1, 2, 8, 32])),
        prompt=draw(st.integers(11, 300)), width=draw(st.integers(1, 50)), shared_prefix=draw(st.integers(0, 10)),
    )  # fmt: skip
