"""Rounds by hand, and counts of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from scripted_search import random_catalog
from specbeam.catalog.trie import ItemTrie
from specbeam.runtime.planning.acceptance import (
    GRID,
    Acceptance,
    LevelCounts,
)
from specbeam.runtime.types import DraftTree, Frontier, Hypotheses, NodeList, Step, Verdict

Nodes = Sequence[int]


WIDEST = 8


FULL = ItemTrie.build(np.stack(np.meshgrid(*[10 * d + np.arange(6) for d in range(3)]), -1).reshape(-1, 3))  # 6 x 6 x 6


class Travel(NamedTuple):
    """One request's round: where it stood, what was drafted, and the frontiers it reached, empty where it ended."""

    k: int
    depth: int
    drafted: Sequence[Nodes]  # by level, in the order of their ranks
    reached: Sequence[Nodes]


def a_round(travels: Sequence[Travel], trie: ItemTrie, fewest: int = 1) -> tuple[Frontier, DraftTree, Verdict]:
    """The rounds of several requests as the loop tells of them; the drafted nodes in no order."""
    batch = len(travels)
    k = np.array([travel.k for travel in travels])
    depth = np.array([travel.depth for travel in travels])
    before = Frontier(standing([[0]] * batch), standing([[]] * batch), depth, k)
    now = list[Nodes]([[0]] * batch)
    steps, at = [], depth.copy()
    for number in range(max(len(travel.reached) for travel in travels)):
        ready = np.array([len(travel.reached) > number for travel in travels])
        now = [travel.reached[number] if ready[i] else now[i] for i, travel in enumerate(travels)]
        at = at + ready
        nodes = standing(now).nodes
        moved = ready & (nodes[:, 0] >= 0)
        needed = moved[:, None] & (nodes >= 0) & (trie.child_count[nodes] >= fewest)
        steps.append(Step(moved, at, nodes, needed, needed & False, needed & False))
    after = Frontier(standing(now), standing([[]] * batch), at, k)
    rows = [
        (request, node, level, rank)
        for request, travel in enumerate(travels)
        for level, nodes in enumerate(travel.drafted, 1)
        for rank, node in enumerate(nodes)
    ]
    flat = np.array(rows, np.int64).reshape(-1, 4)
    flat = flat[np.random.default_rng(len(rows)).permutation(len(rows))]
    tree = DraftTree(NodeList(flat[:, 0], flat[:, 1]), flat[:, 2], flat[:, 3], np.zeros(len(rows)), "strict")
    nothing = np.empty(0, np.int64)
    return before, tree, Verdict(after, NodeList(nothing, nothing), tuple(steps))


def standing(nodes: Sequence[Nodes]) -> Hypotheses:
    padded = np.array([[*row, *[-1] * (WIDEST - len(row))] for row in nodes], np.int64)
    scores = np.where(padded >= 0, 0.0, -np.inf)
    return Hypotheses(padded, scores, scores)


def observed(travels: Sequence[Travel], trie: ItemTrie = FULL, times: int = 1) -> Acceptance:
    acceptance = Acceptance(trie)
    for _ in range(times):
        acceptance.observe(*a_round(travels, trie))
    return acceptance


def level_of(acceptance: Acceptance, k: int, start: int, level: int) -> LevelCounts | None:
    counts = {width.k: width for width in acceptance.snapshot().widths}[k]
    return {(entry.start, entry.level): entry for entry in counts.levels}.get((start, level))


def upto(width: int, *, of: int = 1, since: int = 1) -> tuple[int, ...]:
    """`of` for every width of the grid from `since` to `width`."""
    return tuple(of if since <= w <= width else 0 for w in GRID)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[ItemTrie, int, list[list[Travel]]]:
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    trie = ItemTrie.build(random_catalog(rng, int(rng.integers(1, 60)), int(rng.integers(1, 5)), 5))

    def some(depth: int, most: int) -> list[int]:
        nodes = np.arange(trie.level_start[depth], trie.level_start[depth + 1])
        return rng.permutation(nodes)[: int(rng.integers(0, most + 1))].tolist()

    def travel() -> Travel:
        depth = int(rng.integers(0, trie.length))
        drafted = [some(d, 40) for d in range(depth + 1, min(trie.length, depth + int(rng.integers(1, 4))))]
        reached: list[Nodes] = []
        for d in range(depth + 1, depth + 1 + int(rng.integers(1, trie.length - depth + 1))):
            reached.append([] if d == trie.length else some(d, WIDEST))
            if not reached[-1]:
                break
        return Travel(int(rng.integers(1, 4)), depth, drafted, reached)

    many = [[travel() for _ in range(draw(st.integers(1, 5)))] for _ in range(draw(st.integers(1, 3)))]
    return trie, draw(st.sampled_from([1, 2])), many
