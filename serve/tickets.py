"""One request on its way: what is asked, until when, and who waits for the answer."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic

import msgspec

from ..runtime.types import Recommendation, Request
from .editions import Lane


class Served(msgspec.Struct, frozen=True):
    """An answer, and what it came from."""

    recommendation: Recommendation
    model: str
    version: str  # the model's
    catalog: str  # the catalog's version
    waited: float  # seconds in the queue
    seconds: float  # from its arrival to its answer
    batch: int  # the most requests that it shared a call with, itself included


@dataclass(eq=False)
class Ticket:
    """One request in the queue or in flight."""

    request: Request
    k: int
    lane: Lane
    priority: int  # the largest first
    deadline: float | None  # by time.monotonic; None: none
    arrived: float = field(default_factory=monotonic)
    started: float | None = None
    batch: int = 0
    future: "Future[Served]" = field(default_factory=Future)

    def late(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and now >= self.deadline
