"""A run over a stream of requests: window by window, so that those of one length share a batch."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Generic, Literal, Self, TypeVar, final

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

    def answers(self, windows: Iterator[list[Request]]) -> Iterator[dict[int, Answer | RequestFailure]]:
        """The batches of all windows, in order. Who serves several batches at a time takes the next window before the
        one at hand is done."""
        return chain.from_iterable(map(self.batches, windows))

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
    ahead: bool = False,
) -> Ending:
    """Do a job for a stream of entries, from the first on that the sink lacks.

    An entry for which the engine gives no numbers becomes a reject; where whole batches do, of at least `HOPELESS`
    requests in succession, `HopelessError` is raised, and they are not among them. `progress` is told how many
    requests have been tried, after every batch; where `stop` was asked for meanwhile it ends ("stopped"). A sink that
    keeps lines lets another run go on from there. ahead: the next window may be read before the one at hand is done;
    not for entries that come once somebody has the answers to earlier ones.
    """
    stop = stop or Stop()
    run = _Run(job, islice(entries, sink.entries, None), sink, stop)
    try:
        windows = run.read()
        streams: Iterable[Iterator[list[Request]]] = [windows] if ahead else (iter([one]) for one in windows)
        for answers in map(job.answers, streams):
            for batch in answers:
                run.take(batch)
                progress(sink.counts.tried)
                if stop.asked:
                    return "stopped"
    except StopAsked:
        return "stopped"
    return "end"


class _Window(Generic[Entry, Counts]):
    """Entries that were read together, and what there is of them."""

    def __init__(self, entries: dict[int, Entry | Reject]) -> None:
        self.entries = entries  # by their numbers
        self.asked: list[int] = []  # the numbers of those that are requests, in their order
        self.left = 0  # of these, that have no answer yet
        self.lines: list[tuple[dict[int, msgspec.Struct], Counts]] = []  # that the sink has not got yet


@final
class _Run(Generic[Entry, Request, Answer, Counts]):
    """The windows that are not done; the sink has lines of the first one only."""

    def __init__(
        self, job: Job[Entry, Request, Answer, Counts], entries: Iterator[Entry | Reject], sink: Sink[Counts],
        stop: Stop,
    ) -> None:  # fmt: skip
        self._job, self._entries, self._sink, self._stop = job, entries, sink, stop
        self._windows = deque[_Window[Entry, Counts]]()

    def read(self) -> Iterator[list[Request]]:
        """The requests of each window."""
        end = self._sink.entries
        while True:
            with self._stop.waiting():
                entries = dict(enumerate(islice(self._entries, self._job.ahead), end))
            if not entries:
                return
            end += len(entries)
            window = _Window[Entry, Counts](entries)
            requests = self._encoded(window)
            self._windows.append(window)
            if len(self._windows) == 1:
                self._keep(window)
            self._close()
            yield requests

    def take(self, batch: Mapping[int, Answer | RequestFailure]) -> None:
        """One batch of the first window. Raises `HopelessError`."""
        window, counts, lines = self._windows[0], self._job.counts(), dict[int, msgspec.Struct]()
        for place, answer in batch.items():
            number = window.asked[place]
            entry = window.entries[number]
            assert not isinstance(entry, Reject)
            if isinstance(answer, RequestFailure):
                counts.failed, counts.reason = counts.failed + 1, answer.reason
                lines[number] = self._job.failed(entry, answer.reason)
            else:
                counts.served += 1
                lines[number] = self._job.line(entry, answer, counts)
        window.lines.append((lines, counts))
        window.left -= len(batch)
        if counts.served:  # or else the engine may be at fault, and another run do better
            self._keep(window)
        elif (succession := sum(one.failed for _, one in window.lines)) >= HOPELESS:
            raise HopelessError(
                f"Stopped, because whole batches failed: {succession} requests in succession could not be answered: "
                f"{counts.reason}."
            )
        self._close()

    def _encoded(self, window: _Window[Entry, Counts]) -> list[Request]:
        """What an engine is to be asked of a window; the lines of entries that are no requests are there."""
        requests, lines, counts = list[Request](), dict[int, msgspec.Struct](), self._job.counts()
        for number, entry in window.entries.items():
            if self._sink.has(number):
                continue
            request = self._job.encode(entry, counts)
            if isinstance(request, Reject):
                counts.rejected, counts.cut_files = counts.rejected + 1, counts.cut_files + request.rest
                lines[number] = RejectLine.of(request)
            elif isinstance(request, Ready):
                counts.served += 1
                lines[number] = request.line
            else:
                window.asked.append(number)
                requests.append(request)
        window.left = len(requests)
        if lines:
            window.lines.append((lines, counts))
        return requests

    def _keep(self, window: _Window[Entry, Counts]) -> None:
        for lines, counts in window.lines:
            self._sink.keep(lines, counts)
        window.lines.clear()

    def _close(self) -> None:
        """Whatever is complete; the next window is the first then."""
        while self._windows and not self._windows[0].left:
            window = self._windows.popleft()
            self._keep(window)
            self._sink.close_window(self._sink.entries + len(window.entries))
            if self._windows:
                self._keep(self._windows[0])
