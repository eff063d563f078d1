"""Every counter and every timer of the loop."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .timers import Timers
from .types import Int64, Step


class Call(NamedTuple):
    """One call of an engine, or one level of guesses of a pool."""

    role: str  # "target", "draft" or "pool"
    batch: int
    past: int  # cached tokens
    new: int  # tokens of the call
    prompt: int  # of these, the prompt's
    seconds: float


@dataclass(eq=False)
class DecodeStats(Timers):
    """Counters of all requests that a recommender has served; `merge` adds another's."""

    length: int  # L
    requests: int = 0
    target_calls: int = 0  # summed over requests
    draft_calls: int = 0
    nodes_evaluated: int = 0
    nodes_drafted: int = 0  # by a model or a pool; children that were all evaluated are nobody's draft
    target_seconds: float = 0.0  # inside the target engine
    prompt_seconds: float = 0.0  # of these, in calls that bring the prompts
    draft_seconds: float = 0.0
    pool_seconds: float = 0.0  # guessing from a pool
    planning_seconds: float = 0.0  # deciding how much to draft, and learning from what came of it
    log: list[Call] | None = None  # every call, where somebody wants to know
    total_seconds: float = 0.0  # inside `Recommender.recommend`, engines included
    failed_drafts: int = 0  # requests for which the draft's engine gave NaN or infinity: no draft of its own
    stand_ins: int = 0  # nodes that stood in for better ones (tolerant verification)
    needed: Int64 = field(init=False)  # [L] frontier nodes that the target had to score, by depth
    found: Int64 = field(init=False)  # [L] of these, how many it had scored ahead of need
    levels: Int64 = field(init=False)  # [L] requests whose frontier reached each depth and needed scores there
    levels_found: Int64 = field(init=False)  # [L] of these, requests for which no node was missing

    def __post_init__(self) -> None:
        self.needed, self.found, self.levels, self.levels_found = np.zeros((4, self.length), np.int64)

    def called(self, call: Call) -> None:
        """Add one call, whose seconds `timed` has added already."""
        if call.prompt and call.role == "target":
            self.prompt_seconds += call.seconds
        if self.log is not None:
            self.log.append(call)

    def merge(self, other: "DecodeStats") -> None:
        """Add another's counters and seconds, and its calls where they are wanted."""
        for name, value in vars(other).items():
            if name not in ("length", "log"):
                setattr(self, name, getattr(self, name) + value)
        if self.log is not None:
            self.log += other.log or []

    def taken(self) -> "DecodeStats":
        """All counters and seconds until now, which begin again; the log stays."""
        share, fresh = DecodeStats(self.length), DecodeStats(self.length)
        for name in vars(fresh).keys() - {"length", "log"}:
            setattr(share, name, getattr(self, name))
            setattr(self, name, getattr(fresh, name))
        return share

    def count(self, steps: Sequence[Step]) -> None:
        """Add what one batch's verdicts found: all at once, as most of a step's share is the calls it takes."""
        if not steps:
            return
        needed = np.array([step.needed for step in steps]).sum(axis=2)  # [steps, B]
        asked = needed > 0
        needed, found = needed[asked], np.array([step.found for step in steps]).sum(axis=2)[asked]
        depth = np.array([step.depth for step in steps])[asked]
        np.add.at(self.needed, depth, needed)
        np.add.at(self.found, depth, found)
        np.add.at(self.levels, depth, 1)
        np.add.at(self.levels_found, depth, needed == found)
        self.stand_ins += int(np.array([step.stand_ins for step in steps]).sum())

    @property
    def rejections(self) -> int:
        """Frontier nodes that had not been evaluated when they were reached (0 if all guesses were right)."""
        return int((self.needed - self.found).sum())

    @property
    def host_seconds(self) -> float:
        """Seconds outside the engines and the pool."""
        return self.total_seconds - self.target_seconds - self.draft_seconds - self.pool_seconds

    def acceptance(self) -> list[float | None]:
        """Share of needed nodes that were evaluated ahead of need, at depths 1 to L - 1; None where none was needed."""
        pairs = zip(self.found[1:].tolist(), self.needed[1:].tolist(), strict=True)
        return [found / needed if needed else None for found, needed in pairs]
