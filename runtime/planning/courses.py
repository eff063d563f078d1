"""One batch's course by policies that were chosen, round by round, and who looks at what came of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import numpy as np

from ..stats import Call
from ..types import Bool, DraftTree, Frontier, Int64, Verdict
from .plans import Policy
from .policy import Course

Key = tuple[int, int, int]  # batch, prompt, K


class Look(NamedTuple):
    """At what came of a batch."""

    batch: Key  # as it was, not rounded
    weight: int  # how many batches it stands for
    ahead: bool  # whether something was evaluated ahead of need


class Watcher(ABC):
    """Who wants to know what came of batches."""

    @abstractmethod
    def learn(self, before: Frontier, tree: DraftTree, verdict: Verdict, enumerated: Bool) -> None:
        """What came of a round; enumerated [B]: requests of which all children were evaluated."""

    @abstractmethod
    def ended(self, look: Look | None, calls: Sequence[Call], seconds: float) -> None:
        """A batch is done; look: where somebody wants to know what came of it."""

    @abstractmethod
    def left(self, look: Look | None, seconds: float) -> None:
        """Others joined a batch: what came of it is nobody's."""


@final
class Plain(Course):
    """Nothing is evaluated ahead of need."""

    def __init__(self, watcher: Watcher, look: Look | None) -> None:
        self._watcher, self._look = watcher, look

    def plan(self, frontier: Frontier) -> tuple[Int64, Bool]:
        batch = len(frontier.depth)
        return np.zeros((batch, 0), np.int64), np.zeros(batch, bool)

    def observe(self, before: Frontier, tree: DraftTree, verdict: Verdict) -> None:
        if self._look is not None:
            self._watcher.learn(before, tree, verdict, np.zeros(len(before.depth), bool))

    def end(self, calls: Sequence[Call], seconds: float) -> None:
        self._watcher.ended(self._look, calls, seconds)

    def leave(self, seconds: float) -> None:
        self._watcher.left(self._look, seconds)


@final
class Ahead(Course):
    """A policy for every K."""

    def __init__(self, watcher: Watcher, policies: Mapping[int, Policy], look: Look | None) -> None:
        self._watcher, self._policies, self._look = watcher, policies, look
        self._enumerated = np.zeros(0, bool)

    def plan(self, frontier: Frontier) -> tuple[Int64, Bool]:
        plans = []
        for k, policy in self._policies.items():
            mine = frontier.active & (frontier.width == k)
            plans += [(mine & (frontier.depth == s), policy[s]) for s in set(frontier.depth[mine].tolist())]
        batch = len(frontier.depth)
        widths = np.zeros((batch, max((len(plan.widths) for _, plan in plans), default=0)), np.int64)
        self._enumerated = np.zeros(batch, bool)
        for mine, plan in plans:
            self._enumerated |= mine & plan.enumerate
            widths[mine, : len(plan.widths)] = plan.widths
        return widths, self._enumerated

    def observe(self, before: Frontier, tree: DraftTree, verdict: Verdict) -> None:
        if self._look is not None:
            self._watcher.learn(before, tree, verdict, self._enumerated)

    def end(self, calls: Sequence[Call], seconds: float) -> None:
        self._watcher.ended(self._look, calls, seconds)

    def leave(self, seconds: float) -> None:
        self._watcher.left(self._look, seconds)
