"""The catalog of a bundle as a file: columns that are mapped into memory, or, before those, a line an item."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .arrays import kinds, map_arrays, write_arrays
from .bounds import DAMAGED
from .codes import Codes
from .columns import Columns
from .errors import CatalogError
from .files import whole_file
from .lookup import Positions, hashed
from .rows import is_permutation
from .texts import BLOCK, OptionalTexts, TextColumn
from .trie import PAD

LINES = ".jsonl"  # how files of lines end
KINDS = {
    "item.bytes": "U8", "item.starts": "I64", "title.bytes": "U8", "title.starts": "I64", "title.there": "U8",
    "string.bytes": "U8", "string.starts": "I64", "identifier.strings": "I32", "lookup.hashes": "U32",
    "lookup.items": "I32",
}  # fmt: skip
Array = NDArray[Any]


class _Row(msgspec.Struct):
    """A line of a file of lines."""

    item: str
    identifier: tuple[str, ...]
    title: str | None = None


def save(catalog: Columns, path: Path) -> None:
    """Write a catalog's columns, with the hashes that items are looked up by."""
    ids, codes, titles, found = catalog
    arrays: dict[str, Array] = {
        "item.bytes": ids.data, "item.starts": ids.starts,
        "title.bytes": titles.texts.data, "title.starts": titles.texts.starts, "title.there": titles.there.view("u1"),
        "string.bytes": codes.strings.data, "string.starts": codes.strings.starts, "identifier.strings": codes.table,
        "lookup.hashes": found.hashes, "lookup.items": found.places,
    }  # fmt: skip
    with whole_file(path, replace=False) as file:
        write_arrays(file, arrays)


def open_columns(path: Path) -> Columns:
    """Map a file of columns, whose numbers nobody has looked at: see `check`. It costs the same for any catalog."""
    try:
        arrays = map_arrays(path)
    except CatalogError as error:
        raise CatalogError(f"{path}: {error}") from None
    if kinds(arrays) != KINDS:
        got = ", ".join(f"{name} ({kind})" for name, kind in sorted(kinds(arrays).items()))
        raise CatalogError(f"{path}: it holds {got or 'nothing'}; expected a catalog's columns. Export again.")
    flat = {name: array.ndim for name, array in arrays.items()} == dict.fromkeys(KINDS, 1) | {"identifier.strings": 2}
    items = len(arrays["lookup.items"])
    sizes = {len(arrays[name]) for name in ("title.there", "identifier.strings", "lookup.hashes")}
    sizes |= {len(arrays[name]) - 1 for name in ("item.starts", "title.starts")}
    if not flat or sizes != {items} or not items or not len(arrays["string.starts"]):
        shapes = {name: array.shape for name, array in arrays.items()}
        raise CatalogError(f"{path}: its columns have the shapes {shapes}; expected as many of each item, and some.")
    ids, texts, strings = (TextColumn(arrays[f"{k}.bytes"], arrays[f"{k}.starts"]) for k in ("item", "title", "string"))
    return Columns(
        ids, Codes(arrays["identifier.strings"], strings), OptionalTexts(texts, arrays["title.there"].view(bool)),
        Positions(ids, arrays["lookup.hashes"], arrays["lookup.items"]),
    )  # fmt: skip


def check(catalog: Columns, path: Path) -> None:
    """Look at everything in a catalog's columns, in time linear in them. Raises `CatalogError` with the file."""
    fault = next(_faults(catalog), None)
    if fault is not None:
        raise CatalogError(f"{path}: {fault}. The file is damaged; export again.")


def _faults(catalog: Columns) -> Iterator[str]:
    """What is wrong, the first first: what comes later relies on what comes before."""
    columns = {
        "item ids": catalog.item_ids, "titles": catalog.titles.texts, "strings": catalog.identifiers.strings,
    }  # fmt: skip
    for name, column in columns.items():
        if not _is_text(column):
            yield f"its {name} are no texts, one after another"
    if catalog.titles.there.view("u1").max() > 1 or catalog.titles.texts.lengths[~catalog.titles.there].any():
        yield "it does not say which items have a title"
    strings, table = catalog.identifiers.strings, catalog.identifiers.table
    known = [*strings]
    if known != sorted(set(known)) or "" in known:
        yield "its strings do not ascend"
    used = np.zeros(len(strings), bool)
    ended = np.zeros(len(table), bool)
    for column in table.T:
        if column.min() < PAD or column.max() >= len(strings) or (ended & (column != PAD)).any():
            yield "its identifiers are not made of its strings"
        ended |= column == PAD
        used[column[column != PAD]] = True
    if not table.shape[1] or (table[:, 0] == PAD).any() or ended.all() or not used.all():
        yield "its identifiers are not made of its strings"
    found = catalog.position
    if not is_permutation(found.places, len(table)) or (found.hashes[1:] < found.hashes[:-1]).any():
        yield "its items are not in the order of their hashes"
    if (hashed(catalog.item_ids)[found.places] != found.hashes).any():
        yield "the hashes of its items are others'"
    if found.repeated():
        yield "an item stands more than once"


def _is_text(column: TextColumn) -> bool:
    """Whether texts fill the buffer, and each of them is UTF-8."""
    starts, data = column.starts, column.data
    if starts[0] != 0 or starts[-1] != len(data) or (starts[1:] < starts[:-1]).any():
        return False
    with suppress(UnicodeDecodeError):
        for first in range(0, len(column), BLOCK):
            ends = starts[first : first + BLOCK + 1]
            part = data[ends[0] : ends[-1]]
            part.tobytes().decode()
            begins = ends[:-1][ends[:-1] < len(data)]
            if ((data[begins] & 0xC0) == 0x80).any():  # within a character
                return False
        return True
    return False


def open_lines(path: Path) -> tuple[list[str], list[tuple[str, ...]], list[str | None]]:
    """Read a file of lines, {"item": "0", "identifier": [...], "title": ...}: ids, identifiers, titles.

    Raises `CatalogError` with the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}.") from None
    rows = _rows(path, data)
    return [row.item for row in rows], [row.identifier for row in rows], [row.title for row in rows]


def _rows(path: Path, data: bytes) -> list[_Row]:
    """The lines of a catalog file. Raises `CatalogError` naming the first that is none."""
    decoder = msgspec.json.Decoder(_Row)
    with suppress(*DAMAGED):
        return decoder.decode_lines(data)
    number, fault = 0, Exception("its lines do not end where its items do")
    for number, line in enumerate(data.splitlines(), 1):  # noqa: B007 (the message needs it)
        try:
            decoder.decode(line)
        except DAMAGED as error:
            fault = error
            break
    raise CatalogError(f"{path}, line {number}: {fault}. The file is damaged; export again.")
