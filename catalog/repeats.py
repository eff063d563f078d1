"""Keys that occur twice in a JSON object, of which decoders keep the last without a word.

All but few objects are cleared by counting characters; only the others are decoded again.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from .errors import SpecBeamError

_SPELLED = re.compile(r"\\u00[4-7]")  # a letter as an escape: a name may be hidden in it


class Fields:
    """The keys that a struct is read from; others are ignored, however often they occur."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        fields = msgspec.structs.fields(kind)
        self.names = tuple(field.encode_name for field in fields)
        self.required = sum(field.required for field in fields)
        self._quoted = [f'"{name}"' for name in self.names]

    def repeated(self, text: str) -> str | None:
        """A name that occurs more than once in an object that was decoded as the struct; None where none does."""
        if not self.suspicious(text):
            return None
        try:
            return self.first_twice(key for key, *_ in _pairs(text))
        except RecursionError:
            return None  # what is nested that deeply is no value of a field

    def suspicious(self, text: str) -> bool:
        """Whether a name might occur twice in a text."""
        for name in self._quoted:
            if text.count(name) > 1:
                return True
        return spells_letters(text)

    def first_twice(self, keys: Iterable[str]) -> str | None:
        """The first name that is there more than once."""
        counts = Counter(keys)
        return next((name for name in self.names if counts[name] > 1), None)


def refuse_repeated(path: Path, text: str, fields: Fields, error: type[SpecBeamError]) -> None:
    """Raise `error` where an object of objects holds a member twice, or one of its members a field."""
    if not _may_repeat(text, fields):
        return
    try:
        pairs = _pairs(text)
    except RecursionError:
        raise error(f"{path}: nested too deeply; expected one object of items.") from None
    if twice := repeated(key for key, _ in pairs):
        raise error(f"{path}: {lines_of(text, twice)} Keep one entry for each item.")
    for key, value in pairs:
        if isinstance(value, tuple) and (name := fields.first_twice(each for each, _ in value)):
            raise error(f"{path}: item {key!r} has the key {name!r} more than once. Keep one.")


def _may_repeat(text: str, fields: Fields) -> bool:
    quotes = 0
    for value in msgspec.json.decode(text, type=dict[str, msgspec.Raw]).values():
        member = bytes(value).decode()
        quotes += member.count('"') + 2
        if fields.suspicious(member):
            return True
    return quotes != text.count('"')


def spells_letters(text: str) -> bool:
    """Whether a text has a letter as an escape."""
    return "\\u00" in text and _SPELLED.search(text) is not None


def _pairs(text: str) -> tuple[tuple[str, object], ...]:
    """A JSON object as its pairs, and those in it as well; numbers are texts, because whole ones may be too long."""
    value = json.loads(text, object_pairs_hook=tuple, parse_int=str)
    return value if isinstance(value, tuple) else ()


def repeated(keys: Iterable[str]) -> list[str]:
    """The keys that occur more than once."""
    return [key for key, count in Counter(keys).items() if count > 1]


def lines_of(text: str, keys: Sequence[str]) -> str:
    """Says on which lines of a JSON text the first few of the keys occur."""
    return said_lines(key_lines(text, keys))


def key_lines(text: str, keys: Sequence[str]) -> dict[str, list[int]]:
    """On which lines of a JSON text keys occur."""
    lines: dict[str, list[int]] = {key: [] for key in keys}
    line = place = 0
    for match in re.finditer(r'("(?:[^"\\]|\\.)*")\s*(:?)', text):  # every string; a colon after it makes it a key
        if match[2] and (key := json.loads(match[1])) in lines:
            line, place = line + text.count("\n", place, match.start()), match.start()
            lines[key].append(line + 1)
    return lines


def said_lines(lines: Mapping[str, Sequence[int]], shown: int = 5, what: str = "lines") -> str:
    """Says on which lines items occur; of the first few items."""
    named = [f"item {key!r} occurs on {what} {', '.join(map(str, at))}" for key, at in list(lines.items())[:shown]]
    return "; ".join(named) + (f"; and {len(lines) - shown} more items." if len(lines) > shown else ".")
