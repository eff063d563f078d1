"""The catalog: items, their identifiers and their titles, in the order of the index file."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from sys import get_int_max_str_digits
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .bounds import DAMAGED
from .errors import CatalogError
from .files import whole_file
from .packed import refuse_packed
from .repeats import Fields, lines_of, refuse_repeated, repeated
from .trie import PAD

Int64 = NDArray[np.int64]
HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")  # in JSON; a whole one has two of them
SHOWN = 5  # how many offenders of one kind a message names


class _Row(msgspec.Struct):
    """One line of the bundle's catalog file."""

    item: str
    identifier: tuple[str, ...]
    title: str | None = None


class _Description(msgspec.Struct):
    """An entry of items.json, of which only the title is kept."""

    title: str | None = None


DESCRIBED = Fields(_Description)


@dataclass(frozen=True)
class Catalog:
    """I items with identifiers of one or more strings each; several items may share an identifier.

    Raises `CatalogError` when it is empty, holds an item id twice, or an identifier is not made of
    non-empty strings.
    """

    item_ids: tuple[str, ...]
    identifiers: tuple[tuple[str, ...], ...]
    titles: tuple[str | None, ...]

    def __post_init__(self) -> None:
        if not self.item_ids:
            raise CatalogError("the catalog has no items; expected at least one.")
        if not len(self.item_ids) == len(self.identifiers) == len(self.titles):
            counts = f"{len(self.item_ids)} item ids, {len(self.identifiers)} identifiers, {len(self.titles)} titles"
            raise CatalogError(f"got {counts}; expected as many of each.")
        if not (set(map(type, self.item_ids)) <= {str} and set(map(type, self.identifiers)) <= {tuple}):
            raise CatalogError("got item ids or identifiers of another kind; expected text, and tuples of text.")
        if len(self.position) != len(self.item_ids):
            raise CatalogError(f"{_named(repeated(self.item_ids))} occur more than once; expected every item id once.")
        if not all(map(all, self.identifiers)) or not all(self.identifiers):
            empty = [i for i, tokens in zip(self.item_ids, self.identifiers, strict=True) if not all(tokens or [""])]
            raise CatalogError(f"{_named(empty)} have an identifier without tokens or with an empty token.")

    @classmethod
    def load(cls, index: Path, items: Path | None) -> "Catalog":
        """Read LC-Rec style files: `index` {"0": ["<a_47>", ...]}, `items` {"0": {"title": ...}} or {"0": "title"}.

        Items without a title have None; entries of `items` for other items are ignored. Raises
        `CatalogError` with the file (and the line, where a line is at fault).
        """
        item_ids, identifiers = _read_index(index)
        titles = _read_titles(items) if items is not None else {}
        try:
            return cls(item_ids, identifiers, tuple(map(titles.get, item_ids)))
        except CatalogError as error:
            raise CatalogError(f"{index}: {error}") from None

    @classmethod
    def open(cls, path: Path) -> "Catalog":
        """Read what `save` wrote. Raises `CatalogError` with the file and the line."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CatalogError(f"{path}: cannot be read: {error.strerror}.") from None
        share: dict[str, str] = {}
        rows = _rows(path, data)
        identifiers = tuple([shared(row.identifier, share) for row in rows])
        try:
            return cls(tuple([row.item for row in rows]), identifiers, tuple([row.title for row in rows]))
        except CatalogError as error:
            raise CatalogError(f"{path}: {error}") from None

    def save(self, path: Path) -> None:
        """Write one JSON line an item, in catalog order: {"item": "0", "identifier": [...], "title": ...}."""
        encoder = msgspec.json.Encoder()
        with whole_file(path, replace=False) as file:
            for row in map(_Row, self.item_ids, self.identifiers, self.titles):
                file.write(encoder.encode(row) + b"\n")

    @cached_property
    def position(self) -> dict[str, int]:
        """Item id to its place in catalog order."""
        return {item: place for place, item in enumerate(self.item_ids)}

    @property
    def length(self) -> int:
        """Strings in the longest identifier."""
        return max(map(len, self.identifiers))

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The distinct strings of all identifiers, sorted."""
        return tuple(sorted(set(chain.from_iterable(self.identifiers))))

    def token_ids(self, lookup: Mapping[str, int]) -> Int64:
        """Token ids [I, L] where every string is one token of a vocabulary; `PAD` behind the shorter identifiers.

        `catalog.tokens.identifier_ids` also takes text apart. Raises `CatalogError` naming the tokens
        that `lookup` lacks, or that share an id.
        """
        missing = [token for token in self.tokens if token not in lookup]
        if missing:
            raise lacking(missing, len(self.tokens))
        owner: dict[int, str] = {}
        clash = [(owner[lookup[t]], t) for t in self.tokens if owner.setdefault(lookup[t], t) != t]
        if clash:
            raise CatalogError(f"different tokens have one id in the tokenizer: {some(clash)}; expected distinct ids.")
        flat = map(lookup.__getitem__, chain.from_iterable(self.identifiers))
        return padded(map(len, self.identifiers), flat)


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


def padded(lengths: Iterable[int], flat: Iterable[int]) -> Int64:
    """Rows of token ids, given one after another, as one array [I, L], `PAD` behind the shorter ones."""
    count = np.fromiter(lengths, np.int64)
    table = np.full((len(count), count.max(initial=0)), PAD, np.int64)
    table[np.arange(table.shape[1]) < count[:, None]] = np.fromiter(flat, np.int64, count.sum())
    return table


def lacking(missing: list[str], count: int, hint: str = "") -> CatalogError:
    """The error for strings of the catalog, `count` in all, that should be tokens of the tokenizer and are not."""
    return CatalogError(
        f"{len(missing)} of the catalog's {count} tokens are not in the tokenizer's vocabulary: "
        f"{some(missing)}. Add them to the tokenizer (and train their embeddings), or use the index file "
        f"that the model was trained with.{hint}"
    )


def some(offenders: Sequence[object]) -> str:
    """The first few offenders, and how many more there are."""
    more = f" and {len(offenders) - SHOWN} more" if len(offenders) > SHOWN else ""
    return ", ".join(map(repr, offenders[:SHOWN])) + more


def shared(tokens: Iterable[str], share: dict[str, str]) -> tuple[str, ...]:
    """The tokens, each distinct one held in memory once (a million items have few distinct tokens)."""
    return tuple([share.setdefault(token, token) for token in tokens])


def _named(items: list[str]) -> str:
    return f"items {some(items)}"


def _read_json(path: Path) -> tuple[str, Any]:
    """A file's text and its JSON value, in which an object is a *tuple* of its (key, value) pairs."""
    text = ""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=tuple)
        if HALF_PAIR.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return text, value
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror or error}. Check the path.") from None
    except UnicodeDecodeError as error:
        raise _not_text(path, error) from None
    except UnicodeEncodeError as error:
        raise CatalogError(f"{path}: {error.object[error.start]!r} is half a surrogate pair; expected text.") from None
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise CatalogError(f"{where}: not valid JSON: {error.msg}. Is the file complete?") from None
    except ValueError:  # Python converts no whole number that has more digits
        raise CatalogError(f"{path}: a number of more than {get_int_max_str_digits()} digits. Take it out.") from None
    except RecursionError:
        raise CatalogError(f"{path}: nested too deeply; expected one object of items.") from None


def _not_text(path: Path, error: UnicodeDecodeError) -> CatalogError:
    refuse_packed(str(path), error.object[:8], CatalogError)
    if error.object.startswith((b"\xff\xfe", b"\xfe\xff")):
        return CatalogError(f"{path}: the file is UTF-16. Save it as UTF-8.")
    line = error.object.count(b"\n", 0, error.start) + 1
    return CatalogError(f"{path}, line {line}: not UTF-8 ({error.reason}). Save the file as UTF-8.")


def _read_index(path: Path) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Item ids and identifiers, in the file's order."""
    text, pairs = _read_json(path)
    if not isinstance(pairs, tuple):
        got = type(pairs).__name__
        raise CatalogError(f'{path}: got a JSON {got}; expected an object such as {{"0": ["<a_47>", "<b_103>"], ...}}.')
    if len(dict(pairs)) != len(pairs):
        raise CatalogError(f"{path}: {lines_of(text, repeated(key for key, _ in pairs))} Keep one entry for each item.")
    bad = [(key, tokens) for key, tokens in pairs if not _is_identifier(tokens)]
    if bad:
        shown = "; ".join(f"item {key!r} has {json.dumps(tokens)[:80]}" for key, tokens in bad[:SHOWN])
        raise CatalogError(
            f"{path}: {len(bad)} identifiers are not a non-empty list of non-empty strings: {shown}"
            f'{"; ..." if len(bad) > SHOWN else ""}. Expected such as ["<a_47>", "<b_103>"].'
        )
    share: dict[str, str] = {}
    return tuple(key for key, _ in pairs), tuple(shared(tokens, share) for _, tokens in pairs)


def _is_identifier(tokens: object) -> bool:
    return isinstance(tokens, list) and bool(tokens) and all(isinstance(t, str) and t for t in tokens)


def _read_titles(path: Path) -> dict[str, str | None]:
    """Item id to title, from {"0": {"title": ...}} or {"0": "title"}."""
    try:  # the quick way, which never holds the descriptions
        text = path.read_bytes().decode()
        entries = msgspec.json.decode(text, type=dict[str, _Description | str])
        refuse_repeated(path, text, DESCRIBED, CatalogError)
        return {key: entry if isinstance(entry, str) else entry.title for key, entry in entries.items()}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    return _read_titles_leniently(path)  # also what explains a fault


def _read_titles_leniently(path: Path) -> dict[str, str | None]:
    """As `_read_titles`, for what Python writes as JSON and others do not read (NaN), or a byte order mark."""
    text, pairs = _read_json(path)
    if not isinstance(pairs, tuple):
        got = type(pairs).__name__
        raise CatalogError(f'{path}: got a JSON {got}; expected an object such as {{"0": {{"title": "..."}}, ...}}.')
    if twice := repeated(key for key, _ in pairs):
        raise CatalogError(f"{path}: {lines_of(text, twice)} Keep one entry for each item.")
    twice = [key for key, entry in pairs if isinstance(entry, tuple) and DESCRIBED.first_twice(k for k, _ in entry)]
    if twice:
        raise CatalogError(f"{path}: {_named(twice)} have more than one title. Keep one for each item.")
    titles = {key: dict(entry).get("title") if isinstance(entry, tuple) else entry for key, entry in pairs}
    bad = [key for key, title in titles.items() if not isinstance(title, str | None)]
    if bad:
        raise CatalogError(f"{path}: {_named(bad)} have a title that is not a string; expected a string or null.")
    return titles
