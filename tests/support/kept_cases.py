"""What planners learned, in a cache of a test's own."""

from pathlib import Path

import numpy as np

from planning_cases import TRIE, accepting, linear
from specbeam.runtime.planning.acceptance import Acceptance
from specbeam.runtime.planning.kept import Memory, Subject
from specbeam.runtime.planning.planner import Planner
from specbeam.runtime.stats import Call
from specbeam.runtime.types import Frontier, Hypotheses

DEAR = linear(10, 0.08), linear(3, 0.02)
SUBJECT = Subject(
    bundle="bundle", engine="engine", facts="facts", mode="strict", scoring="full", drafter="model", pool=None,
    reuse=True, threads=1, machine="machine",
)  # fmt: skip
GOOD = accepting(10, lambda s, j, w: w / (w + 0.5)).counts[10]  # nearly all that is needed is drafted


def planner() -> Planner:
    """One that knows nothing, and may take as long as it likes."""
    fresh = Planner(*DEAR, Acceptance(TRIE))
    fresh.effort.serving = 1e6
    return fresh


def memory(folder: Path, of: Planner | None = None, subject: Subject = SUBJECT) -> Memory:
    return Memory(of or planner(), subject, folder)


def learn(one: Planner, requests: int, k: int = 10) -> None:
    """As if drafts of so many requests had been good."""
    one.acceptance.add({k: GOOD.capped(requests)})


def left(folder: Path, requests: int, k: int = 10) -> Path:
    """The file of a process that learned so much."""
    before = planner()
    kept = memory(folder, before)
    learn(before, requests, k)
    assert not kept.keep()
    return kept.path


def calls_of(target: int, draft: int) -> list[Call]:
    """Calls that take what they are believed to."""
    costs = {"target": DEAR[0], "draft": DEAR[1]}
    return [
        Call(role, 1, 80, 40, 0, costs[role].milliseconds(1, 80, 40) / 1000)
        for role, count in (("target", target), ("draft", draft))
        for _ in range(count)
    ]


def frontier(depth: list[int], width: list[int], active: list[bool] | None = None) -> Frontier:
    batch = len(depth)
    nodes = np.full((batch, 10), -1)
    nodes[:, 0] = np.where(active or [True] * batch, 0, -1)
    some = Hypotheses(nodes, np.zeros(nodes.shape), np.zeros(nodes.shape))
    return Frontier(some, some, np.array(depth), np.array(width))
