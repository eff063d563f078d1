"""items.json: the titles of items, read piece by piece and put in the order of the catalog."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from .errors import CatalogError
from .index_json import Spans
from .json_pieces import json_pairs, read_pieces
from .lookup import Positions
from .naming import named
from .repeats import Fields, repeated, said_lines, spells_letters
from .texts import OptionalTexts, TextBuilder, spread

Titles = dict[str, str | None]


class _Description(msgspec.Struct):
    """An entry, of which only the title is kept."""

    title: str | None = None


DESCRIBED = Fields(_Description)
EXPECTED = 'an object such as {"0": {"title": "..."}, ...}'


def read_titles(path: Path, position: Positions, told: Callable[[int], object]) -> OptionalTexts:
    """The title of every item of a catalog, from {"0": {"title": ...}} or {"0": "title"}. Raises `CatalogError`."""
    keys, spans, found = TextBuilder(), Spans(), []
    for piece, (ids, titles) in read_pieces(path, lambda text: _titles(path, text)):
        spans.add(len(keys), piece)
        keys.add(ids)
        told(len(keys))
        places = position.find(ids)
        given = [at for at, title in enumerate(titles) if title is not None and places[at] >= 0]
        texts = [title.encode() for at in given if (title := titles[at]) is not None]
        sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        found.append((places[given], b"".join(texts), sizes))
    if twice := Positions.of(keys.column()).repeated():
        raise CatalogError(f"{path}: {said_lines(spans.lines(path, twice))} Keep one entry for each item.")
    return spread(found, len(position))


def _titles(path: Path, text: str) -> tuple[Sequence[str], Sequence[str | None]]:
    """Ids and titles of a piece."""
    try:  # the quick way, which never holds the descriptions
        entries = msgspec.json.decode(text, type=dict[str, _Description | str])
    except (msgspec.MsgspecError, RecursionError):
        return _leniently(path, text)  # also what explains a fault
    titles = [entry if isinstance(entry, str) else entry.title for entry in entries.values()]
    if not _stand_once(text, [*entries.values()], titles):
        return _leniently(path, text)
    return [*entries], titles


def _stand_once(text: str, entries: Sequence[_Description | str], titles: Sequence[str | None]) -> bool:
    """Whether no item, and no title of one, stands twice, as far as counting tells."""
    kinds = set(map(type, entries))
    if kinds == {_Description}:
        return None not in titles and text.count('"title"') == len(titles) and not spells_letters(text)
    plain = text.replace("\\\\", "")
    return kinds == {str} and plain.count('"') - plain.count('\\"') == 4 * len(titles)


def _leniently(path: Path, text: str) -> tuple[Sequence[str], Sequence[str | None]]:
    """As `_titles`, for what Python writes as JSON and others do not read, such as NaN."""
    pairs = json_pairs(text)
    if not isinstance(pairs, tuple):
        raise CatalogError(f"{path}: got a JSON {type(pairs).__name__}; expected {EXPECTED}.")
    if not repeated(key for key, _ in pairs):
        for key, entry in pairs:
            if isinstance(entry, tuple) and (name := DESCRIBED.first_twice(each for each, _ in entry)):
                raise CatalogError(f"{path}: item {key!r} has the key {name!r} more than once. Keep one.")
    titles = [dict(entry).get("title") if isinstance(entry, tuple) else entry for _, entry in pairs]
    bad = [key for (key, _), title in zip(pairs, titles, strict=True) if not isinstance(title, str | None)]
    if bad:
        raise CatalogError(f"{path}: {named(bad)} have a title that is not a string; expected a string or null.")
    return [key for key, _ in pairs], titles
