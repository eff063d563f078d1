"""A JSON object of millions of members, piece by piece: each piece is an object of some of them.

A piece ends at a comma behind a value. Which commas these are is not worked out: one is tried, and where it is another
(in a text, or within a value), what is before it is no JSON, and the next one is tried. So a piece is right, or none.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from sys import get_int_max_str_digits
from typing import IO, Any, NamedTuple, TypeVar

import msgspec

from .errors import CatalogError
from .packed import refuse_packed

T = TypeVar("T")
PIECE = 8 << 20  # bytes that are read at a time
TAIL, TRIES = 1 << 16, 8  # how far from a piece's end commas are looked for, and how many are tried
HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")  # in JSON; a whole one has two of them
_FIRST = re.compile(rb'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*([\[{"])')
_ENDS = {  # a comma behind a value, by the sign that the first value begins with
    b"[": re.compile(rb"\]\s*,"), b"{": re.compile(rb"\}\s*,"), b'"': re.compile(rb'"\s*,'), b"": re.compile(rb","),
}  # fmt: skip
_NOT_JSON = (ValueError, msgspec.MsgspecError, RecursionError)
_MARK = b"\xef\xbb\xbf"


class Piece(NamedTuple):
    """Where a piece is in its file."""

    start: int  # bytes before it
    end: int
    line: int  # line ends before it
    last: bool  # nothing follows


def read_pieces(path: Path, decode: Callable[[str], T]) -> Iterator[tuple[Piece, T]]:
    """Every piece of a file, decoded. `decode` raises what JSON decoders raise for a text that is none.

    Raises `CatalogError` for a file that cannot be read, or is no JSON, with the line.
    """
    try:
        with path.open("rb") as file:
            yield from _pieces(path, file, decode)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror or error}. Check the path.") from None


def _pieces(path: Path, file: IO[bytes], decode: Callable[[str], T]) -> Iterator[tuple[Piece, T]]:
    held, start, line, ends, more = b"", 0, 0, _ENDS[b""], True
    while more:
        block = file.read(max(PIECE, len(held)))  # twice as many, where no end was found
        held, more = held + block, bool(block)
        if not start:
            found = _FIRST.match(held.removeprefix(_MARK))
            ends = _ENDS[found[1] if found else b""]
        cut = _cut(held, ends, decode, first=not start) if more else None
        if cut is None:
            continue
        end, behind, value = cut
        yield Piece(start, start + end, line, last=False), value
        start, line, held = start + behind, line + held.count(b"\n", 0, behind), held[behind:]
    if start and held.strip() in (b"}", b""):
        raise CatalogError(f"{path}, line {line + 1}: not valid JSON: it ends behind a comma. Is the file complete?")
    piece = Piece(start, start + len(held), line, last=True)
    yield piece, explained(path, held, piece, decode)


def _cut(held: bytes, ends: re.Pattern[bytes], decode: Callable[[str], T], *, first: bool) -> tuple[int, int, T] | None:
    """Where a piece ends, where the next one begins, and what the piece holds; None: no end was found."""
    found = [*ends.finditer(held, max(0, len(held) - TAIL))]
    for match in found[: -TRIES - 1 : -1]:
        end = match.end() - 1
        try:
            return end, match.end(), decode(piece_text(held[:end], first=first, last=False))
        except _NOT_JSON:
            continue
    return None


def piece_text(data: bytes, *, first: bool, last: bool) -> str:
    """A piece as a JSON object by itself."""
    text = data.removeprefix(_MARK) if first else b"{" + data
    return (text if last else text + b"}").decode()


def reread(path: Path, piece: Piece) -> str:
    """A piece's text once more."""
    with path.open("rb") as file:
        file.seek(piece.start)
        data = file.read(piece.end - piece.start)
    return piece_text(data, first=not piece.start, last=piece.last)


def explained(path: Path, data: bytes, piece: Piece, decode: Callable[[str], T]) -> T:
    """The last piece decoded, or a `CatalogError` that says what is wrong with it."""
    text = ""
    try:
        text = piece_text(data, first=not piece.start, last=True)
        return decode(text)
    except UnicodeDecodeError as error:
        raise _not_text(path, error, piece) from None
    except UnicodeEncodeError as error:
        raise CatalogError(f"{path}: {error.object[error.start]!r} is half a surrogate pair; expected text.") from None
    except json.JSONDecodeError as error:
        where = f"{path}, line {piece.line + error.lineno}, column {error.colno}"
        raise CatalogError(f"{where}: not valid JSON: {error.msg}. Is the file complete?") from None
    except ValueError:  # Python converts no whole number that has more digits
        raise CatalogError(f"{path}: a number of more than {get_int_max_str_digits()} digits. Take it out.") from None
    except RecursionError:
        raise CatalogError(f"{path}: nested too deeply; expected one object of items.") from None


def _not_text(path: Path, error: UnicodeDecodeError, piece: Piece) -> CatalogError:
    if not piece.start:
        refuse_packed(str(path), error.object[:8], CatalogError)
        if error.object.startswith((b"\xff\xfe", b"\xfe\xff")):
            return CatalogError(f"{path}: the file is UTF-16. Save it as UTF-8.")
    line = piece.line + error.object.count(b"\n", 0, error.start) + 1
    return CatalogError(f"{path}, line {line}: not UTF-8 ({error.reason}). Save the file as UTF-8.")


def json_pairs(text: str) -> Any:
    """A JSON value, in which an object is a *tuple* of its (key, value) pairs; no text in it is half a pair."""
    value = json.loads(text, object_pairs_hook=tuple)
    if HALF_PAIR.search(text):
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value
