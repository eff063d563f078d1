"""Identifiers as numbers of the strings that they are made of: the strings are few, and held once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, count
from typing import final, overload

import numpy as np
from numpy.typing import NDArray

from .texts import BLOCK, TextColumn, described, is_like
from .trie import PAD

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
FEW = 1 << 16  # strings that are held as Python's; more are made when they are asked for


@final
class Codes(Sequence[tuple[str, ...]]):
    """Identifiers of at most L strings. Equal to any sequence of the same tuples."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, table: Int32, strings: TextColumn) -> None:
        """table [I, L]: numbers of strings, `PAD` behind the shorter ones; strings: ascending, each of them used."""
        self.table, self.strings = table, strings

    @classmethod
    def of(cls, identifiers: Iterable[Sequence[str]]) -> "Codes":
        """Of tuples of strings. Raises `UnicodeEncodeError` for half of a surrogate pair."""
        builder = CodeBuilder()
        builder.add([*identifiers])
        return builder.column()

    @cached_property
    def _texts(self) -> Sequence[str]:
        return [*self.strings] if len(self.strings) <= FEW else self.strings

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[tuple[str, ...], ...]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, ...] | tuple[tuple[str, ...], ...]:
        if isinstance(index, slice):
            return tuple([self[at] for at in range(*index.indices(len(self)))])
        texts = self._texts
        return tuple([texts[code] for code in self.table[index].tolist() if code >= 0])

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        texts = self._texts
        for first in range(0, len(self), BLOCK):
            for row in self.table[first : first + BLOCK].tolist():
                yield tuple([texts[code] for code in row if code >= 0])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Codes):
            return self.strings == other.strings and np.array_equal(self.table, other.table)
        return is_like(self, other)

    def __repr__(self) -> str:
        return described(self)

    @property
    def lengths(self) -> Int64:
        """[I] strings of each."""
        found = np.zeros(len(self), np.int64)
        for column in self.table.T:
            found += column >= 0
        return found

    def ids(self, of_string: NDArray[np.integer]) -> Int64:
        """[I, L] a number of every string [strings] in the strings' places; `PAD` stays."""
        padded = np.append(of_string, PAD)  # which -1 leads to
        table: Int64 = np.empty(self.table.shape, np.int64)
        for column, out in zip(self.table.T, table.T, strict=True):
            out[:] = padded[column]
        return table


class CodeBuilder:
    """Identifiers that come piece by piece."""

    def __init__(self) -> None:
        self._number: defaultdict[str, int] = defaultdict(count().__next__)  # in the order they came
        self._flat: list[Int32] = []
        self._lengths: list[Int32] = []

    def add(self, identifiers: Sequence[Sequence[str]]) -> None:
        """More of them."""
        lengths = np.fromiter(map(len, identifiers), np.int32, len(identifiers))
        strings = chain.from_iterable(identifiers)
        numbers = np.fromiter(map(self._number.__getitem__, strings), np.int32, int(lengths.sum()))
        self._flat.append(numbers)
        self._lengths.append(lengths)

    def add_numbers(self, strings: Sequence[str], numbers: NDArray[np.integer], lengths: Int32) -> None:
        """As `add`: numbers, one identifier after another, are places in `strings`."""
        own = np.fromiter(map(self._number.__getitem__, strings), np.int32, len(strings))
        self._flat.append(own[numbers])
        self._lengths.append(lengths)

    def column(self) -> Codes:
        """What was added, which is forgotten here."""
        strings = sorted(self._number)
        rank = np.empty(len(strings), np.int32)
        rank[[self._number[text] for text in strings]] = np.arange(len(strings), dtype=np.int32)
        longest = max((int(part.max(initial=0)) for part in self._lengths), default=0)
        table, at = np.full((sum(map(len, self._lengths)), longest), PAD, np.int32), 0
        self._flat.reverse()
        for lengths in self._lengths:
            flat, rows = rank[self._flat.pop()], table[at : at + len(lengths)]
            if len(flat) == rows.size:
                rows.ravel()[:] = flat
            else:
                rows[np.arange(longest) < lengths[:, None]] = flat
            at += len(lengths)
        self._lengths.clear()
        self._number.clear()
        return Codes(table, TextColumn.of(strings))
