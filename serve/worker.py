"""The one thread of a device: takes what waits, lets it fly together, answers."""

from collections.abc import Sequence
from threading import Thread, current_thread
from time import monotonic
from typing import final

import numpy as np

from ..catalog.errors import EngineError, SpecBeamError, is_fault, said
from ..runtime.flight import Flight
from ..runtime.types import Recommendation
from .editions import Lane
from .errors import Closed, DeadlinePassed, TooLarge
from .observer import Guarded, Nobody, Observer, logged
from .options import Serving
from .tickets import Ticket
from .waiting import WaitingRoom


@final
class Worker:
    """Serves all requests of one device, whatever model they are for. Several recommenders may share it.

    Deadlines and cancellations are honoured between rounds. A request that fails, fails alone: where an engine raises,
    all that shared the call are served again by halves, until it is known for whom it does.
    """

    def __init__(self, serving: Serving | None = None, observer: Observer | None = None) -> None:
        self.serving, self.observer = serving or Serving(), Guarded(observer or Nobody())
        self.waiting = WaitingRoom(self.serving.queue)
        self.flying = 0  # requests that share calls now
        self._thread = Thread(target=self._work, name="specbeam-worker", daemon=True)
        self._thread.start()

    def close(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Take no more requests; answer those that wait, or unless `drain` refuse them. Returns whether all ended."""
        self.waiting.close()
        if not drain:
            for ticket in self.waiting.discard():
                self._settle(ticket, Closed("this recommender was closed before the request's turn came."))
        if current_thread() is not self._thread:  # a callback of a future may close
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            self._take_turns()
        except BaseException:  # nobody waits for ever for a thread that is gone
            self.waiting.close()
            for ticket in self.waiting.discard():
                self._settle(ticket, Closed("this recommender's worker failed. Open another one, and see the log."))
            raise

    def _take_turns(self) -> None:
        while (lane := self.waiting.first(block=True)) is not None:
            until = monotonic() + self.serving.wait_ms / 1000
            self._serve(lane, self._boarding(lane, self.serving.size, until), joins=self.serving.policy == "in-flight")

    def _boarding(
        self, lane: Lane, most: int, until: float = 0.0, aboard: Sequence[Ticket] = ()
    ) -> list[Ticket]:  # fmt: skip
        """Up to so many requests whose turn it is, that are still wanted, and that memory holds beside those aboard."""
        for ticket in self.waiting.unwanted():
            self._settle(ticket, _late() if ticket.late() else None)
        boarding, now = self.waiting.take(lane, most, until), monotonic()
        for ticket in boarding:
            ticket.started = now
        return self._held(lane, aboard, [ticket for ticket in boarding if self._wanted(ticket)])

    def _held(self, lane: Lane, aboard: Sequence[Ticket], boarding: list[Ticket]) -> list[Ticket]:
        """The first that memory holds; the others wait again. One that it does not hold alone has ended."""
        if not boarding:
            return boarding
        recommender = lane.recommender
        most = recommender.fitting([ticket.request for ticket in (*aboard, *boarding)]) - len(aboard)
        held, others = boarding[: max(most, 0)], boarding[max(most, 0) :]
        for ticket in others:
            ticket.started = None
        self.waiting.give_back(others)
        if not aboard and len(held) == 1 and (reason := recommender.too_large(held[0].request)):
            self._settle(held[0], TooLarge(f"The request cannot be served: {reason}."))
            return []
        return held

    def _wanted(self, ticket: Ticket) -> bool:
        """Whether anybody still waits for a request; it has ended where nobody does."""
        if not (late := ticket.late()) and not ticket.future.cancelled():
            return True
        self._settle(ticket, _late() if late else None)
        return False

    def _serve(self, lane: Lane, tickets: Sequence[Ticket], *, joins: bool) -> None:
        """Serve requests, and where others may join, these as well."""
        aboard = list(tickets)
        try:
            if aboard:
                self._fly(lane, aboard, joins=joins)
        except BaseException as error:  # of Rust's libraries, too
            if len(aboard) == 1 or not is_fault(error):
                for ticket in aboard:
                    self._settle(ticket, _told(error, lane))
                return
            half = len(aboard) // 2
            for part in (aboard[:half], aboard[half:]):
                self._serve(lane, part, joins=False)
        finally:
            self.flying = 0

    def _fly(self, lane: Lane, aboard: list[Ticket], *, joins: bool) -> None:
        """Rounds until all have landed. aboard: whoever has not, whatever is raised."""
        seats: list[Ticket | None] = [*aboard]
        recommender, since, joined = lane.recommender, monotonic(), False
        flight = recommender.flight([ticket.request for ticket in aboard])
        while True:
            since = self._land(lane, flight, seats, aboard, since)
            joining = self._joining(lane, aboard) if joins and aboard else []
            joined = joined or bool(joining)
            if joining or (joined and aboard and None in seats):  # else the cache grows: its slots are nobody's
                kept = [number for number, ticket in enumerate(seats) if ticket is not None]
                seats = [*(seats[number] for number in kept), *joining]
                aboard += joining
                flight.reseat(np.array(kept, np.int64), [ticket.request for ticket in joining])
            if not aboard:
                break
            self.flying = len(aboard)
            for ticket in aboard:
                ticket.batch = max(ticket.batch, len(aboard))
            with flight.stats.timed("total"):
                flight.round()
            self.observer.called(lane.edition, len(aboard), recommender.tally(flight))
        flight.end()
        self.observer.called(lane.edition, 0, recommender.tally(flight))

    def _joining(self, lane: Lane, aboard: Sequence[Ticket]) -> list[Ticket]:
        """Who joins; nobody where requests that cannot share these calls are due first."""
        room = self.serving.size - len(aboard)
        return self._boarding(lane, room, aboard=aboard) if room and self.waiting.first(block=False) is lane else []

    def _land(
        self, lane: Lane, flight: Flight, seats: list[Ticket | None], aboard: list[Ticket], since: float
    ) -> float:  # fmt: skip
        """Answer whoever has landed, and let go whom nobody waits for. Returns the time of the last landing."""
        unwanted = [number for number, ticket in enumerate(seats) if ticket is not None and not self._wanted(ticket)]
        for number in unwanted:
            self._leave(seats, aboard, number)
        if unwanted and flight.running:
            flight.give_up(np.array(unwanted, np.int64))
        landed = [number for number in flight.landed.tolist() if seats[number] is not None]
        answers = flight.answers(np.array(landed, np.int64)) if landed else []
        for number, answer in zip(landed, answers, strict=True):
            ticket = self._leave(seats, aboard, number)
            self._settle(ticket, lane.recommender.unanswered(ticket.request) if answer is None else answer)
        if landed:
            self.waiting.took((monotonic() - since) / len(landed))
        return monotonic() if landed else since

    def _leave(self, seats: list[Ticket | None], aboard: list[Ticket], number: int) -> Ticket:
        ticket = seats[number]
        assert ticket is not None
        seats[number] = None
        aboard.remove(ticket)
        return ticket

    def _settle(self, ticket: Ticket, found: Recommendation | BaseException | None) -> None:
        """A request ends, one way or another; None: nobody waits for it."""
        with logged("a callback of a future"):
            ticket.settle(found)
        outcome = ticket.outcome
        now, started = monotonic(), ticket.started
        waited = (now if started is None else started) - ticket.arrived
        self.observer.ended(ticket.lane.edition, outcome, waited, now - ticket.arrived)


def _told(error: BaseException, lane: Lane) -> BaseException:
    """What a request is told of what an engine has raised."""
    if isinstance(error, SpecBeamError) or not is_fault(error):
        return error
    told = EngineError(
        f"the model {lane.edition.model} failed on this request: {said(error)}. Ask again; if it fails again, see what "
        "the server logs, and build its engine again."
    )
    told.__cause__ = error
    return told


def _late() -> DeadlinePassed:
    return DeadlinePassed("the request's deadline passed before its list was found. Allow it more time, or ask less.")
