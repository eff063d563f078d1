"""The one thread of a device: takes what waits, runs it, answers."""

from collections.abc import Sequence
from threading import Thread
from time import monotonic
from typing import final

from ..catalog.errors import EngineError
from ..runtime.types import Recommendation, RequestFailure
from .editions import Lane
from .errors import Closed, DeadlinePassed
from .observer import Nobody, Observer, Outcome
from .options import Serving
from .tickets import Served, Ticket
from .waiting import WaitingRoom


@final
class Worker:
    """Serves all requests of one device, whatever model they are for. Several recommenders may share it."""

    def __init__(self, serving: Serving | None = None, observer: Observer | None = None) -> None:
        self.serving, self.observer = serving or Serving(), observer or Nobody()
        self.waiting, self.running = WaitingRoom(self.serving.queue), 0
        self._thread = Thread(target=self._work, name="specbeam-worker", daemon=True)
        self._thread.start()

    def close(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Take no more requests; answer those that wait, or unless `drain` refuse them. Returns whether all ended."""
        self.waiting.close()
        if not drain:
            for ticket in self.waiting.discard():
                self._refuse(ticket, Closed("the server stops"), "cancelled")
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (lane := self.waiting.first(block=True)) is not None:
            taken = self.waiting.take(lane, self.serving.size, monotonic() + self.serving.wait_ms / 1000)
            self._run(lane, [ticket for ticket in taken if self._may_start(ticket)])

    def _may_start(self, ticket: Ticket) -> bool:
        if not ticket.future.set_running_or_notify_cancel():
            return False
        if ticket.late(monotonic()):
            self._refuse(ticket, DeadlinePassed("the deadline passed while the request waited"), "late")
            return False
        return True

    def _run(self, lane: Lane, tickets: Sequence[Ticket]) -> None:
        if not tickets:
            return
        start = monotonic()
        for ticket in tickets:
            ticket.started, ticket.batch = start, max(ticket.batch, len(tickets))
        self.running = len(tickets)
        try:
            answers = lane.recommender.run([ticket.request for ticket in tickets])
        except Exception as error:
            if len(tickets) == 1:
                self._refuse(tickets[0], error, "failed")
            else:  # whose fault it is shows by halves
                half = len(tickets) // 2
                self._run(lane, tickets[:half])
                self._run(lane, tickets[half:])
            return
        finally:
            self.running = 0
        for ticket, answer in zip(tickets, answers, strict=True):
            self._answer(ticket, answer)
        self.waiting.took((monotonic() - start) / len(tickets))

    def _answer(self, ticket: Ticket, answer: Recommendation | RequestFailure) -> None:
        if isinstance(answer, RequestFailure):
            self._refuse(ticket, EngineError(answer.reason), "failed")
            return
        now, edition = monotonic(), ticket.lane.edition
        waited = (ticket.started or now) - ticket.arrived
        self.observer.ended(edition, "answered", waited, now - ticket.arrived)
        ticket.future.set_result(
            Served(answer, edition.model, edition.version, edition.catalog, waited, now - ticket.arrived, ticket.batch)
        )

    def _refuse(self, ticket: Ticket, error: BaseException, outcome: Outcome) -> None:
        now = monotonic()
        self.observer.ended(
            ticket.lane.edition, outcome, (ticket.started or now) - ticket.arrived, now - ticket.arrived
        )
        if not ticket.future.done():
            ticket.future.set_exception(error)
