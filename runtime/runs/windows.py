"""A run over a stream of requests: window by window, so that those of one length share a batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Literal, Self, TypeVar

import msgspec

from ...catalog.errors import SpecBeamError
from ...catalog.records import Reject, RejectLine
from ..types import RequestFailure

BATCHES_PER_WINDOW = 32  # requests read ahead
HOPELESS = 8  # requests in succession, and whole batches, for which an engine gives no numbers: then it is at fault

Ending = Literal["end", "stopped"]


class Outcomes(msgspec.Struct, omit_defaults=True):
    """What happened to the requests of one run."""

    served: int = 0
    rejected: int = 0  # lines that are no request
    cut_files: int = 0  # files that could not be read to their end
    failed: int = 0  # requests for which the engine gave no numbers
    reason: str = ""  # of a failure

    @property
    def tried(self) -> int:
        """Requests that an engine was asked."""
        return self.served + self.failed

    def add(self, other: Self) -> None:
        """What happened later."""
        for name in self.__struct_fields__:
            mine, its = getattr(self, name), getattr(other, name)
            setattr(self, name, (its or mine) if isinstance(mine, str) else mine + its)


Entry = TypeVar("Entry")
Request = TypeVar("Request")
Answer = TypeVar("Answer")
Counts = TypeVar("Counts", bound=Outcomes)


class HopelessError(SpecBeamError):
    """An engine answers nothing any more."""


class StopAsked(BaseException):
    """Somebody asked for the end of a run that waits for its input."""


class Stop:
    """Whether somebody asked for the end of a run: between two batches, or while it waits for its input."""

    def __init__(self) -> None:
        self.asked = False
        self._waits = False

    def ask(self) -> None:
        """End the run. To be called by its thread (by a handler of a signal, or what it calls itself)."""
        self.asked = True
        if self._waits:
            raise StopAsked

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While nothing is lost by an end at any place."""
        self._waits = True
        try:
            if self.asked:
                raise StopAsked
            yield
        finally:
            self._waits = False


@dataclass(frozen=True)
class Ready:
    """An entry's line, for which no engine is needed."""

    line: msgspec.Struct


class Job(ABC, Generic[Entry, Request, Answer, Counts]):
    """What a run does with each entry of its input."""

    ahead: int  # entries of a window

    @abstractmethod
    def counts(self) -> Counts:
        """Of nothing yet."""

    @abstractmethod
    def encode(self, entry: Entry | Reject, counts: Counts) -> Request | Reject | Ready:
        """An entry as a request to the engine, or why it is none."""

    @abstractmethod
    def batches(self, requests: list[Request]) -> Iterator[dict[int, Answer | RequestFailure]]:
        """The answers by the requests' numbers, batch by batch. What shares a batch depends on `requests` alone, and
        is the same without the requests of whole batches."""

    @abstractmethod
    def line(self, entry: Entry, answer: Answer, counts: Counts) -> msgspec.Struct:
        """An answer as a line of the output; what is to be counted of it is added."""

    @abstractmethod
    def failed(self, entry: Entry, reason: str) -> RejectLine:
        """The reject of an entry for which the engine gave no numbers."""


class Sink(ABC, Generic[Counts]):
    """Where a run's lines go."""

    counts: Counts  # of all lines that are there
    entries: int  # of the input, of which the lines of all are there

    @abstractmethod
    def has(self, number: int) -> bool:
        """Whether the line of an entry of the window at hand is there; entries are counted from 0."""

    @abstractmethod
    def keep(self, lines: Mapping[int, msgspec.Struct], counts: Counts) -> None:
        """Take lines of the window at hand, by their entries' numbers."""

    @abstractmethod
    def close_window(self, entries: int) -> None:
        """The window's lines are complete, up to the entry with this number."""


class PipeSink(Sink[Counts]):
    """Lines that are gone when they are written: in the input's order, a window at a time."""

    def __init__(
        self, counts: Counts, write: Callable[[msgspec.Struct], None], reject: Callable[[RejectLine], None]
    ) -> None:
        self.counts, self.entries = counts, 0
        self._write, self._reject = write, reject
        self._window: dict[int, msgspec.Struct] = {}

    def has(self, number: int) -> bool:
        return number in self._window

    def keep(self, lines: Mapping[int, msgspec.Struct], counts: Counts) -> None:
        self._window.update(lines)
        self.counts.add(counts)

    def close_window(self, entries: int) -> None:
        for _, line in sorted(self._window.items()):
            if isinstance(line, RejectLine):
                self._reject(line)
            else:
                self._write(line)
        self._window.clear()
        self.entries = entries


def serve(
    job: Job[Entry, Request, Answer, Counts],
    entries: Iterable[Entry | Reject],
    sink: Sink[Counts],
    *,
    progress: Callable[[int], None] = lambda tried: None,
    stop: Stop | None = None,
) -> Ending:
    """Do a job for a stream of entries, from the first on that the sink lacks.

    An entry for which the engine gives no numbers becomes a reject; where whole batches do, of at least `HOPELESS`
    requests in succession, `HopelessError` is raised, and they are not among them. `progress` is told how many
    requests have been tried, after every batch; where `stop` was asked for meanwhile it ends ("stopped"). A sink that
    keeps lines lets another run go on from there.
    """
    stop = stop or Stop()
    try:
        return _served(job, islice(entries, sink.entries, None), sink, progress, stop)
    except StopAsked:
        return "stopped"


def _served(
    job: Job[Entry, Request, Answer, Counts], entries: Iterator[Entry | Reject], sink: Sink[Counts],
    progress: Callable[[int], None], stop: Stop,
) -> Ending:  # fmt: skip
    while True:
        with stop.waiting():
            window = dict(enumerate(islice(entries, job.ahead), sink.entries))
        if not window:
            return "end"
        asked = _encoded(job, {n: entry for n, entry in window.items() if not sink.has(n)}, sink)
        numbers, failed = list(asked), list[tuple[dict[int, msgspec.Struct], Counts]]()
        for batch in job.batches(list(asked.values())):
            counts, lines = job.counts(), dict[int, msgspec.Struct]()
            for n, answer in ((numbers[place], answer) for place, answer in batch.items()):
                entry = window[n]
                assert not isinstance(entry, Reject)
                if isinstance(answer, RequestFailure):
                    counts.failed, counts.reason = counts.failed + 1, answer.reason
                    lines[n] = job.failed(entry, answer.reason)
                else:
                    counts.served += 1
                    lines[n] = job.line(entry, answer, counts)
            failed.append((lines, counts))
            if counts.served:  # or else the engine may be at fault, and another run do better
                _keep(failed, sink)
            elif (succession := sum(one.failed for _, one in failed)) >= HOPELESS:
                raise HopelessError(
                    f"Stopped, because whole batches failed: {succession} requests in succession could not be "
                    f"answered: {counts.reason}."
                )
            progress(sink.counts.tried)
            if stop.asked:
                return "stopped"
        _keep(failed, sink)
        sink.close_window(sink.entries + len(window))


def _keep(batches: list[tuple[dict[int, msgspec.Struct], Counts]], sink: Sink[Counts]) -> None:
    for lines, counts in batches:
        sink.keep(lines, counts)
    batches.clear()


def _encoded(
    job: Job[Entry, Request, Answer, Counts], window: Mapping[int, Entry | Reject], sink: Sink[Counts]
) -> dict[int, Request]:
    """The requests of a window; the lines of entries that are none go to the sink."""
    requests, lines = dict[int, Request](), dict[int, msgspec.Struct]()
    counts = job.counts()
    for number, entry in window.items():
        request = job.encode(entry, counts)
        if isinstance(request, Reject):
            counts.rejected, counts.cut_files = counts.rejected + 1, counts.cut_files + request.rest
            lines[number] = RejectLine.of(request)
        elif isinstance(request, Ready):
            counts.served += 1
            lines[number] = request.line
        else:
            requests[number] = request
    if lines:
        sink.keep(lines, counts)
    return requests
