"""Requests that wait: bounded, the largest priority first, then the oldest."""

from collections.abc import Callable, Sequence
from heapq import heappush
from itertools import count
from math import inf
from threading import Condition
from time import monotonic
from typing import final

from .editions import Lane
from .errors import Closed, Overloaded
from .tickets import Ticket

NEAR = 4  # batches among which requests of about one length share one

Entry = tuple[int, int, Ticket]  # priority (the least first), order, request


@final
class WaitingRoom:
    """The queue of one worker; safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._most, self._closed = most, False
        self._lanes: dict[Lane, list[Entry]] = {}  # heaps
        self._count, self._order, self._pace = 0, count(), 0.0
        self._earliest = inf  # deadline
        self._dropped: list[Ticket] = []  # that nobody wants, and that have not ended yet
        self.changed = Condition()

    def __len__(self) -> int:
        return self._count

    def put(self, ticket: Ticket) -> None:
        """Raises `Overloaded` where as many wait as may, and `Closed`."""
        with self.changed:
            if self._closed:
                raise Closed("this recommender is closed: nothing more is answered. Open another one.")
            if self._count >= self._most:
                self._drop(lambda waiting: waiting.future.cancelled())
            if self._count >= self._most:
                raise Overloaded(self._count, max(self._count * self._pace, 0.1))
            heappush(self._lanes.setdefault(ticket.lane, []), (-ticket.priority, next(self._order), ticket))
            self._count += 1
            self._earliest = min(self._earliest, inf if ticket.deadline is None else ticket.deadline)
            self.changed.notify_all()

    def took(self, seconds: float) -> None:
        """A request took so many seconds of the worker, which says how soon there is room again."""
        self._pace = seconds if not self._pace else 0.9 * self._pace + 0.1 * seconds

    def close(self) -> None:
        """Take no more; what waits is still handed out."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def first(self, *, block: bool) -> Lane | None:
        """The lane of the request that is due next; None: nobody waits, and where `block`, it is closed as well."""
        with self.changed:
            while not self._count and block and not self._closed:
                self.changed.wait()
            return min(self._lanes, key=lambda lane: self._lanes[lane][0][:2]) if self._count else None

    def take(self, lane: Lane, most: int, until: float = 0.0) -> list[Ticket]:
        """Up to `most` requests of a lane; where there are fewer, more are waited for `until` (by time.monotonic)."""
        with self.changed:
            while len(self._lanes.get(lane, ())) < most and not self._closed:
                left = until - monotonic()
                if left <= 0 or not self.changed.wait(left):
                    break
            entries = sorted(self._lanes.pop(lane, []))
            chosen, rest = _alike(entries, most) if len(entries) > most else (entries, [])
            if rest:
                self._lanes[lane] = rest
            self._count -= len(chosen)
            return [ticket for _, _, ticket in chosen]

    def give_back(self, tickets: Sequence[Ticket]) -> None:
        """Requests that were taken wait again, in front of all of their priority."""
        with self.changed:
            for ticket in reversed(tickets):
                entry = -ticket.priority, -next(self._order), ticket
                heappush(self._lanes.setdefault(ticket.lane, []), entry)
                self._earliest = min(self._earliest, inf if ticket.deadline is None else ticket.deadline)
            self._count += len(tickets)

    def unwanted(self) -> list[Ticket]:
        """Those whose deadline has passed, out of the queue, and those that were cancelled and had to make room."""
        with self.changed:
            if self._count and monotonic() >= self._earliest:
                self._drop(Ticket.late)
                waiting = (ticket.deadline for heap in self._lanes.values() for _, _, ticket in heap)
                self._earliest = min((deadline for deadline in waiting if deadline is not None), default=inf)
            dropped, self._dropped = self._dropped, []
            return dropped

    def _drop(self, unwanted: Callable[[Ticket], bool]) -> None:
        for lane, heap in list(self._lanes.items()):
            gone = [entry for entry in heap if unwanted(entry[2])]
            if gone:
                self._dropped += [ticket for _, _, ticket in gone]
                self._lanes[lane] = sorted(set(heap) - set(gone))
                self._count -= len(gone)
            if not self._lanes[lane]:
                del self._lanes[lane]

    def discard(self) -> list[Ticket]:
        """All that wait, out of the queue."""
        with self.changed:
            every = [ticket for heap in self._lanes.values() for _, _, ticket in sorted(heap)]
            self._lanes.clear()
            self._count = 0
            return every


def _alike(entries: list[Entry], most: int) -> tuple[list[Entry], list[Entry]]:
    """The first of sorted entries and those near it whose prompts are most nearly as long, and the rest, sorted.

    A call is as wide as its longest prompt. Whoever is first is never passed over.
    """
    near, length = entries[: NEAR * most], len(entries[0][2].request.prompt)
    near.sort(key=lambda entry: (entry[0], abs(len(entry[2].request.prompt) - length), entry[1]))
    return near[:most], sorted(near[most:]) + entries[NEAR * most :]
