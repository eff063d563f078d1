"""index.json: the identifiers of all items, read piece by piece."""

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from .codes import CodeBuilder, Codes
from .errors import CatalogError
from .json_pieces import Piece, json_pairs, read_pieces, reread
from .lookup import Positions
from .naming import SHOWN, refuse_odd_ids
from .repeats import key_lines, said_lines
from .texts import TextBuilder, TextColumn


class _Members(NamedTuple):
    """Of one piece."""

    ids: Sequence[str]
    identifiers: Sequence[Sequence[str]]
    bad: Sequence[tuple[str, object]] = ()  # items whose identifier is none; it counts as empty
    other: str = ""  # the kind of value that it is, if it is no object


class Spans:
    """Which members of an object are in which piece of its file."""

    def __init__(self) -> None:
        self._first: list[int] = []  # numbers of members
        self._pieces: list[Piece] = []

    def add(self, first: int, piece: Piece) -> None:
        """The next piece, and the number of its first member."""
        self._first.append(first)
        self._pieces.append(piece)

    def lines(self, path: Path, members: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """On which lines members stand, of which the numbers are known."""
        found: dict[str, list[int]] = {key: [] for key in members}
        shown = [*members][:SHOWN]
        for at in sorted({bisect_right(self._first, number) - 1 for key in shown for number in members[key]}):
            piece = self._pieces[at]
            for key, lines in key_lines(reread(path, piece), shown).items():
                found[key] += [piece.line + line for line in lines]
        return found


def read_index(path: Path, told: Callable[[int], object]) -> tuple[TextColumn, Codes, Positions]:
    """Item ids and identifiers, in the file's order. Raises `CatalogError`."""
    ids, codes, spans, bad = TextBuilder(), CodeBuilder(), Spans(), list[tuple[str, object]]()
    for piece, members in read_pieces(path, _members):
        if members.other:
            expected = 'an object such as {"0": ["<a_47>", "<b_103>"], ...}'
            raise CatalogError(f"{path}: got a JSON {members.other}; expected {expected}.")
        spans.add(len(ids), piece)
        ids.add(members.ids)
        codes.add(members.identifiers)
        bad += members.bad
        told(len(ids))
    column = ids.column()
    if not len(column):
        raise CatalogError(f"{path}: the catalog has no items; expected at least one.")
    refuse_odd_ids(path, column)
    position = Positions.of(column)
    if repeated := position.repeated():
        raise CatalogError(f"{path}: {said_lines(spans.lines(path, repeated))} Keep one entry for each item.")
    if bad:
        shown = "; ".join(f"item {key!r} has {json.dumps(tokens)[:80]}" for key, tokens in bad[:SHOWN])
        raise CatalogError(
            f"{path}: {len(bad)} identifiers are not a non-empty list of non-empty strings: {shown}"
            f'{"; ..." if len(bad) > SHOWN else ""}. Expected such as ["<a_47>", "<b_103>"].'
        )
    return column, codes.column(), position


def _members(text: str) -> _Members:
    """A piece's items. What is not as it should be takes the way that can say so."""
    if "\\" not in text and '""' not in text:
        try:
            return _quickly(text)
        except (msgspec.MsgspecError, ValueError):
            pass
    pairs = json_pairs(text)
    if not isinstance(pairs, tuple):
        return _Members((), (), other=type(pairs).__name__)
    bad = [(key, tokens) for key, tokens in pairs if not _is_identifier(tokens)]
    return _Members([key for key, _ in pairs], [tokens if _is_identifier(tokens) else () for _, tokens in pairs], bad)


def _quickly(text: str) -> _Members:
    """Of a text without escapes. Raises ValueError where it cannot tell whether an item stands there twice."""
    members = msgspec.json.decode(text, type=dict[str, tuple[str, ...]])
    identifiers = [*members.values()]
    lengths = [*map(len, identifiers)]
    if text.count('"') != 2 * (len(members) + sum(lengths)) or not all(lengths):
        raise ValueError("a member is there more than once, or has no strings")
    return _Members([*members], identifiers)


def _is_identifier(tokens: object) -> bool:
    return isinstance(tokens, list) and bool(tokens) and all(isinstance(t, str) and t for t in tokens)
