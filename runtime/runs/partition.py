"""Partitions of a run's input, each done by itself: whoever does it, and with whatever others, its lines are the same.

A partition is a fixed number of windows of one stream, which is a file of the input, or several that are read as one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import count, islice
from time import perf_counter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from ...catalog.records import Reject
from .inference import write_line
from .windows import Job, Outcomes, PipeSink, serve

WINDOWS = 4  # of a partition
Counts = TypeVar("Counts", bound=Outcomes)


class Key(NamedTuple):
    """Which partition: by the stream's number, and its own in the stream."""

    stream: int
    number: int


class Partition(NamedTuple):
    """What is to be done."""

    key: Key
    entries: list[Any]  # of the input, rejects included


@dataclass(frozen=True)
class Done(Generic[Counts]):
    """What was."""

    key: Key
    results: bytes  # lines
    rejects: bytes
    counts: Counts
    stats: Any  # of its requests: what the job counts
    warnings: list[str]
    seconds: float


JobMaker = Callable[[], Job[Any, Any, Any, Any]]  # a new job on engines that are loaded; it knows of no other one


class Opens(Protocol):
    """What crosses to a process, and opens engines there."""

    def jobs(self, warn: Callable[[str], None]) -> JobMaker: ...


def partitions(stream: int, entries: "Iterable[Any | Reject]", size: int) -> Iterator[Partition]:
    """A stream cut into partitions of `size` entries; the last has what is left."""
    entries = iter(entries)
    for number in count():
        some = list(islice(entries, size))
        if not some:
            return
        yield Partition(Key(stream, number), some)


def done(job: Any, partition: Partition, warnings: list[str]) -> Done[Any]:
    """Do a partition; warnings: what the job tells meanwhile.

    Raises `HopelessError` where the engine answers nothing, and what the job raises.
    """
    start, results, rejects = perf_counter(), BytesIO(), BytesIO()
    sink = PipeSink(job.counts(), lambda line: write_line(results, line), lambda line: write_line(rejects, line))
    serve(job, partition.entries, sink)
    return Done(
        partition.key,
        results.getvalue(),
        rejects.getvalue(),
        sink.counts,
        job.stats,
        list(warnings),
        perf_counter() - start,
    )
