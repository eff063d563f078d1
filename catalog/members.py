"""The members of one large JSON object, one after another."""

import json
import re
from collections.abc import Iterator
from typing import Any

DEEP = object()  # in place of a value that is nested too deeply to be held
_SPACE = re.compile(r"[ \t\r\n]*")
_MARK = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[][{}]', re.DOTALL)  # a string, or a bracket
_CLOSING = {"[": "]", "{": "}"}
_DECODER = json.JSONDecoder()
_PATIENT = json.JSONDecoder(parse_int=float)  # for whole numbers of more digits than Python converts


def members(text: str) -> Iterator[tuple[str, Any, int, int]]:
    """The members of a JSON object: (key, value, where the key starts, where the value ends).

    A value that Python cannot nest is `DEEP`. Raises `json.JSONDecodeError` where the text stops being an object.
    """

    def space(place: int) -> int:
        match = _SPACE.match(text, place)
        return match.end() if match else place

    def expect(wanted: str, place: int) -> int:
        if text[place : place + 1] not in tuple(wanted):
            got = repr(text[place]) if place < len(text) else "the end of the file"
            raise json.JSONDecodeError(f"got {got} instead of {' or '.join(map(repr, wanted))}", text, place)
        return place + 1

    place = space(expect("{", space(0)))
    while text[place : place + 1] != "}":
        start = place
        expect('"', place)
        key, place = _DECODER.raw_decode(text, place)
        place = space(expect(":", space(place)))
        value, end = _value(text, place)
        yield key, value, start, end
        place = space(end)
        if text[place : place + 1] != "}":
            place = space(expect(",}", place))
            expect('"', place)  # no "}" after a comma
    if space(place + 1) != len(text):
        raise json.JSONDecodeError("got more text after the object", text, space(place + 1))


def _value(text: str, place: int) -> tuple[Any, int]:
    """The value that begins at `place`, and where it ends."""
    try:
        try:
            return _DECODER.raw_decode(text, place)
        except json.JSONDecodeError:
            raise
        except ValueError:
            return _PATIENT.raw_decode(text, place)
    except RecursionError:
        return DEEP, _skipped(text, place)


def _skipped(text: str, place: int) -> int:
    """Where the list or object that begins at `place` ends, by its brackets alone."""
    closing: list[str] = []
    for mark in _MARK.finditer(text, place):
        sign = mark[0]
        if sign in _CLOSING:
            closing.append(_CLOSING[sign])
        elif sign in ("]", "}"):
            if sign != closing.pop():
                raise json.JSONDecodeError(f"nested too deeply, and closed by {sign!r}", text, mark.start())
            if not closing:
                return mark.end()
    raise json.JSONDecodeError("nested too deeply, and never closed", text, place)
