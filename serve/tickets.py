"""One request on its way: what is asked, until when, and who waits for the answer."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

import msgspec

from ..runtime.types import Recommendation, Request
from .editions import Lane
from .errors import Closed, DeadlinePassed


class Served(msgspec.Struct, frozen=True):
    """An answer, and what it came from."""

    recommendation: Recommendation
    model: str
    version: str  # the model's
    catalog: str  # the catalog's version
    waited: float  # seconds in the queue
    seconds: float  # from its arrival to its answer
    batch: int  # the most requests that it shared a call with, itself included


Outcome = Literal[
    "answered", "failed", "cancelled", "late", "refused"
]  # failed: by the engine; late: past its deadline


@dataclass(eq=False)
class Ticket:
    """One request in the queue or in flight."""

    request: Request
    lane: Lane
    priority: int  # the largest first
    deadline: float | None  # by time.monotonic; None: none
    arrived: float = field(default_factory=monotonic)
    started: float | None = None
    batch: int = 0
    future: "Future[Served]" = field(default_factory=Future)
    outcome: Outcome = "cancelled"  # once it has ended

    def late(self) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and monotonic() >= self.deadline

    def settle(self, found: Recommendation | BaseException | None) -> None:
        """Give whoever waits the answer, or the reason why there is none; None: nobody waits. Once only.

        Raises what the future's callbacks do that is no `Exception`.
        """
        if not self.future.set_running_or_notify_cancel() or found is None:
            return
        if isinstance(found, BaseException):
            late, closed = isinstance(found, DeadlinePassed), isinstance(found, Closed)
            self.outcome = "late" if late else "refused" if closed else "failed"
            self.future.set_exception(found)
            return
        now, edition = monotonic(), self.lane.edition
        waited = (now if self.started is None else self.started) - self.arrived
        seconds, versions = now - self.arrived, (edition.model, edition.version, edition.catalog)
        self.outcome = "answered"
        self.future.set_result(Served(found, *versions, waited, seconds, self.batch))
