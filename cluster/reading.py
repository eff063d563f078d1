"""The input of a run, cut into partitions where it is read: which they are depends on the input alone."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from ..catalog.errors import SpecBeamError
from ..catalog.histories.read import formats_of, joined, read_histories
from ..catalog.histories.storage import Place, Remote, files_of, opened
from ..runtime.runs.partition import WINDOWS, Key, Partition, partitions
from ..runtime.runs.windows import BATCHES_PER_WINDOW
from ..text.prompts import prompts_of

Read = Callable[[list[Place]], Iterator[Any]]  # the entries of a stream; crosses by pickle


class Ended(NamedTuple):
    """A stream was read to its end."""

    stream: int
    partitions: int


class Unread(NamedTuple):
    """A stream could not be."""

    stream: int
    reason: str


Piece = Partition | Ended | Unread


@dataclass(frozen=True)
class Input:
    """What a run reads."""

    streams: list[list[Place]]  # files that are read as one
    read: Read
    limit: int | None = None  # entries, of all streams together
    partition: int = 0  # entries

    def in_windows(self, batch: int) -> "Input":
        """With partitions for such batches."""
        return replace(self, partition=WINDOWS * BATCHES_PER_WINDOW * batch)

    @property
    def files(self) -> list[Place]:
        """Of all streams."""
        return [place for stream in self.streams for place in stream]

    @property
    def names(self) -> list[list[str]]:
        """The files of each stream."""
        return [[str(place) for place in stream] for stream in self.streams]

    @property
    def local(self) -> bool:
        """Whether some of it is where this process runs, and need not be anywhere else."""
        return not all(isinstance(place, Remote) for place in self.files)

    def tasks(self, wanted: Sequence[int]) -> list[list[int]]:
        """The numbers of the streams that are read one after another; wanted: those that have to be read."""
        return [[number] for number in wanted] if self.limit is None else [list(range(len(self.streams)))]

    def pieces(self, numbers: list[int], skip: frozenset[Key]) -> Iterator[Piece]:
        """Streams as partitions, without those to `skip`, and how each ended. Behind one that cannot be read nothing
        follows."""
        left = self.limit
        for number in numbers:
            found = 0
            try:
                for part in partitions(number, islice(self.read(self.streams[number]), left), self.partition):
                    found += 1
                    left = None if left is None else left - len(part.entries)
                    if part.key not in skip:
                        yield part
            except SpecBeamError as error:
                yield Unread(number, str(error))
                return
            yield Ended(number, found)


def histories(places: Sequence[Place], format: str | None, item_base: int, limit: int | None) -> Input:
    """Of history files, and folders of them. Raises `HistoryError`."""
    files = files_of(list(places))
    formats = formats_of(files, format, item_base, fetch=False)
    return Input(joined(files, formats), partial(_histories, format=format, item_base=item_base), limit)


def prompts(places: Sequence[Place], limit: int | None) -> Input:
    """Of prompt files, and folders of them. Raises `HistoryError` for a folder without any."""
    return Input([[place] for place in files_of(list(places))], _prompts, limit)


def _prompts(stream: list[Place]) -> Iterator[Any]:
    with opened(stream[0], sys.stdin.buffer) as file:
        yield from prompts_of(str(stream[0]), file)


def _histories(stream: list[Place], format: str | None, item_base: int) -> Iterator[Any]:
    return read_histories(stream, format=format, item_base=item_base, keep_read=True)
