"""Texts as one buffer of UTF-8 and where each of them begins: ten million are two arrays, not ten million objects."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import final, overload

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

BLOCK = 1 << 14  # texts that are made at a time where all are asked for


@final
class TextColumn(Sequence[str]):
    """Texts, of which each is made when it is asked for. Equal to any sequence of the same texts."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: Bytes, starts: Int64) -> None:
        """data: all of them, one after another, as UTF-8; starts [n + 1]: where each begins, and the last ends."""
        self.data, self.starts = data, starts
        self._raw = data.data

    def __reduce__(self) -> tuple[type["TextColumn"], tuple[Bytes, Int64]]:
        return TextColumn, (np.asarray(self.data), np.asarray(self.starts))  # where it goes it is mapped no more

    @classmethod
    def of(cls, texts: Iterable[str]) -> "TextColumn":
        """Raises `UnicodeEncodeError` for half of a surrogate pair."""
        builder = TextBuilder()
        builder.add([*texts])
        return builder.column()

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple([self[at] for at in range(*index.indices(len(self)))])
        if index < 0:
            index += len(self)
        if index < 0:
            raise IndexError(index)
        return str(self._raw[self.starts[index] : self.starts[index + 1]], "utf-8")

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks():
            for text in block:
                yield text.decode()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TextColumn):
            return np.array_equal(self.starts, other.starts) and np.array_equal(self.data, other.data)
        return is_like(self, other)

    def __repr__(self) -> str:
        return described(self)

    def blocks(self) -> Iterator[list[bytes]]:
        """All of them as bytes, some thousand at a time."""
        for first in range(0, len(self), BLOCK):
            starts = self.starts[first : first + BLOCK + 1]
            raw, ends = self.data[starts[0] : starts[-1]].tobytes(), (starts - starts[0]).tolist()
            yield [raw[begin:end] for begin, end in pairwise(ends)]

    @property
    def lengths(self) -> Int64:
        """[n] bytes of each."""
        return np.diff(self.starts)


@final
class OptionalTexts(Sequence[str | None]):
    """Texts, some of which are not there."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, texts: TextColumn, there: Bool) -> None:
        """texts: empty where there is none."""
        self.texts, self.there = texts, there

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> "OptionalTexts":
        """As `TextColumn.of`."""
        texts = [*texts]
        return cls(TextColumn.of(text or "" for text in texts), np.array([text is not None for text in texts], bool))

    def __len__(self) -> int:
        return len(self.there)

    @overload
    def __getitem__(self, index: int) -> str | None: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str | None, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str | None, ...] | None:
        if isinstance(index, slice):
            return tuple([self[at] for at in range(*index.indices(len(self)))])
        return self.texts[index] if self.there[index] else None

    def __iter__(self) -> Iterator[str | None]:
        first = 0
        for block in self.texts.blocks():
            there = self.there[first : first + len(block)].tolist()
            first += len(block)
            for text, given in zip(block, there, strict=True):
                yield text.decode() if given else None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, OptionalTexts):
            return np.array_equal(self.there, other.there) and self.texts == other.texts
        return is_like(self, other)

    def __repr__(self) -> str:
        return described(self)


def is_like(column: Sequence[object], other: object) -> bool:
    """Whether another sequence holds the same, in the same order."""
    if not isinstance(other, Sequence) or isinstance(other, str) or len(column) != len(other):
        return False
    return all(mine == theirs for mine, theirs in zip(column, other, strict=True))


def described(column: Sequence[object]) -> str:
    """A column's beginning, and how long it is."""
    more = f", ... {len(column):,} in all" if len(column) > 3 else ""
    return f"<{', '.join(map(repr, column[:3]))}{more}>"


class TextBuilder:
    """A column that is filled piece by piece."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._lengths: list[NDArray[np.int32]] = []

    def __len__(self) -> int:
        return sum(map(len, self._lengths))

    def add(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """More texts. Returns the bytes of each; raises `UnicodeEncodeError` for half of a surrogate pair."""
        encoded = [text.encode() for text in texts]
        return self.add_bytes(b"".join(encoded), np.fromiter(map(len, encoded), np.int32, len(encoded)))

    def add_bytes(self, data: bytes, lengths: NDArray[np.int32]) -> NDArray[np.int32]:
        """As `add`, of texts that are UTF-8 already."""
        self._parts.append(data)
        self._lengths.append(lengths)
        return lengths

    def column(self) -> TextColumn:
        """What was added, which is forgotten here."""
        starts = np.zeros(len(self) + 1, np.int64)
        if self._lengths:
            np.cumsum(np.concatenate(self._lengths), out=starts[1:])
        data, at = np.empty(int(starts[-1]), np.uint8), 0
        self._parts.reverse()
        while self._parts:  # what has been copied is given back at once
            part = self._parts.pop()
            data[at : at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
        self._lengths.clear()
        return TextColumn(data, starts)


def spread(texts: Iterable[tuple[Int64, bytes, Int64]], count: int) -> OptionalTexts:
    """A column of texts that come in another order, in pieces: (places [m], all bytes, bytes of each [m])."""
    pieces = [*texts]
    lengths, there = np.zeros(count + 1, np.int64), np.zeros(count, bool)
    for places, _, sizes in pieces:
        lengths[1:][places], there[places] = sizes, True
    starts = np.cumsum(lengths, out=lengths)
    data = np.empty(int(starts[-1]), np.uint8)
    pieces.reverse()
    while pieces:
        places, raw, sizes = pieces.pop()
        begin = starts[places]
        if len(places) and (np.diff(places) == 1).all():
            data[begin[0] : begin[0] + len(raw)] = np.frombuffer(raw, np.uint8)
        else:
            shift = begin - (np.cumsum(sizes) - sizes)
            data[np.arange(len(raw)) + np.repeat(shift, sizes)] = np.frombuffer(raw, np.uint8)
    return OptionalTexts(TextColumn(data, starts), there)
