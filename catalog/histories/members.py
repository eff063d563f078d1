"""The members of one large JSON object in a history file, one after another; no more of the file is held than one.

The text is a window on the file: what is before the member at hand is forgotten when more is read.
"""

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from ..errors import HistoryError
from ..records import LONGEST, SHOWN, refuse_utf16

DEEP = object()  # in place of a value that is nested too deeply to be held
LONG = object()  # in place of a value of a member that is longer than `LONGEST`
READ = 1 << 18  # bytes at a time
_SPACE = re.compile(r"[ \t\r\n]*")
_COLON = re.compile(r"[ \t\r\n]*:[ \t\r\n]*")
_BRACKET, _SIGN = re.compile(r'[][{}"]'), re.compile(r'[][{}",]')
_STRING = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)  # as far as it goes
_CLOSING = {"[": "]", "{": "}"}
_DECODER = json.JSONDecoder()
_PATIENT = json.JSONDecoder(parse_int=float)  # for whole numbers of more digits than Python converts
_UNSURE = 12  # characters before the end of a text in which an error may come from the end alone ("\ud83d\ude0")
_DEEP, _LONG = "nested too deeply", "too long to be held"  # why a value is scanned
_OPEN = f"{_DEEP}, and never closed"


class Member(NamedTuple):
    """A key, its value, the line where the key starts, and both as text; that text is cut where the value is `LONG`."""

    key: str
    value: Any
    line: int  # counted from 1
    raw: str


def members(name: str, file: IO[bytes], *, longest: int = LONGEST, read: int = READ) -> Iterator[Member]:
    """The members of the JSON object that a file is; bytes that are not UTF-8 as `surrogateescape` has them.

    longest: bytes of a member; a longer one is `LONG`, and is not held. A value that Python cannot nest is `DEEP`.
    read: bytes read at a time. Raises `HistoryError` where the file stops being such an object.
    """
    window = _Window(name, file, longest, read)
    try:
        window.take("{")
        if window.sign() == "}":
            window.take("}")
        else:
            yield window.member()
            while window.take(",}") == ",":
                yield window.member()
        if window.sign():
            raise json.JSONDecodeError("got more text after the object", window.text, window.place)
    except json.JSONDecodeError as error:
        raise window.broken(error.msg, *window.where(error.pos)) from None


class _Window:
    """The text of a file from somewhere to somewhere, and the place in it where reading goes on."""

    def __init__(self, name: str, file: IO[bytes], longest: int, read: int) -> None:
        self.text, self.place = "", 0
        self._name, self._file, self._longest, self._read = name, file, longest, read
        self._decoder = getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._whole = self._began = False  # read to the end of the file; read from it
        self._line, self._counted, self._column = 1, 0, 1  # the line at a place of the text; its first column

    def sign(self) -> str:
        """The next character that is no space; none at the end of the file."""
        self.place = _after(_SPACE, self.text, self.place)
        while self.place == len(self.text) and self._more():
            self.place = _after(_SPACE, self.text, self.place)
        return self.text[self.place : self.place + 1]

    def take(self, wanted: str) -> str:
        """The next character that is no space, which must be one of those; behind it goes reading on."""
        sign = self.sign()
        if not sign or sign not in wanted:
            raise _unexpected(self.text, self.place, wanted)
        self.place += 1
        return sign

    def member(self) -> Member:
        """The member that begins here."""
        if self.sign() != '"':
            raise _unexpected(self.text, self.place, '"')
        while True:
            try:
                key, value, end = _member(self.text, self.place)
                if end + 2 < len(self.text) or self._whole:  # not a number that goes on ("1e+")
                    break
            except json.JSONDecodeError as error:
                if self._whole or not _may_be_cut(error, self.text):
                    raise
            if self._longer(self.text[self.place : -2]):  # what was read beyond the member is no part of it
                return self._long()
            self._more()
        line, raw = self._line_at(self.place), self.text[self.place : end]
        self.place = end
        return Member(key, LONG, line, raw[:SHOWN]) if self._longer(raw) else Member(key, value, line, raw)

    def where(self, place: int) -> tuple[int, int]:
        """Line and column of a place of the text, counted from 1."""
        before = self.text.rfind("\n", 0, place)
        return self._line_at(place), place - before if before >= 0 else self._column + place

    def broken(self, reason: str, line: int, column: int) -> HistoryError:
        """The error that says where the file stops being an object of users."""
        return HistoryError(
            f'{self._name}, line {line}, column {column}: {reason}; expected one JSON object, {{"user": '
            "[items, ...], ...}. Is the file complete? (For one object a line use --format jsonl.)"
        )

    def _line_at(self, place: int) -> int:
        """The line of a place that is not before any asked for earlier."""
        self._line, self._counted = self._line + self.text.count("\n", self._counted, place), place
        return self._line

    def _longer(self, text: str) -> bool:
        if len(text) * 4 <= self._longest:  # bytes of a character: at most
            return False
        return len(text if text.isascii() else text.encode("utf-8", "surrogateescape")) > self._longest

    def _more(self) -> bool:
        """Forget what is before the place, and read on: as much again, up to a member's limit. False at the end."""
        if self._whole:
            return False
        _, self._column = self.where(self.place)
        self.text, self.place, self._counted = self.text[self.place :], 0, 0
        held = len(self.text)
        data = self._file.read(self._read + max(0, min(held, self._longest - held)))
        if not self._began:
            refuse_utf16(self._name, data)
        self._began, self._whole = True, not data
        self.text += self._decoder.decode(data, final=not data)
        return True

    def _long(self) -> Member:
        """The member that begins here and is too long to be held; it ends where its brackets say."""
        (line, column), raw = self.where(self.place), self.text[self.place : self.place + SHOWN]
        scan = _Scan(_LONG)
        while not scan.ended(self.text, self.place):
            self.place = scan.place
            if not self._more():
                raise self.broken(f"{_LONG}, and never closed", line, column)
        self.place = scan.place
        return Member("", LONG, line, raw)


class _Scan:
    """Looks for the end of a member or a value by its brackets alone, in a text that comes in pieces."""

    def __init__(self, why: str) -> None:
        self._why, self.place = why, 0  # how far it has come in the last piece
        self._closing = bytearray()  # the brackets that are still to come, the last one first
        self._quoted = False

    def ended(self, text: str, place: int) -> bool:
        """Whether it ends in this piece, of which all before `place` is known: then that is at `self.place`."""
        self.place = place
        while True:
            if self._quoted:
                self.place = _after(_STRING, text, self.place)
                if text[self.place : self.place + 1] != '"':  # the end, perhaps behind half an escape
                    return False
                self.place, self._quoted = self.place + 1, False
            found = (_BRACKET if self._closing else _SIGN).search(text, self.place)
            if found is None:
                self.place = len(text)
                return False
            if self._ends(found[0], text, found.start()):
                return True

    def _ends(self, sign: str, text: str, place: int) -> bool:
        if not self._closing and sign in ",}]":  # what ends here is no list or object
            self.place = place
            return True
        self.place = place + 1
        if sign == '"':
            self._quoted = True
        elif sign in _CLOSING:
            self._closing.append(ord(_CLOSING[sign]))
        elif ord(sign) != self._closing.pop():
            raise json.JSONDecodeError(f"{self._why}, and closed by {sign!r}", text, place)
        return sign in "]}" and not self._closing


def _member(text: str, place: int) -> tuple[str, Any, int]:
    """The member that begins at `place`: key, value, and where it ends."""
    key, place = _DECODER.raw_decode(text, place)
    colon = _COLON.match(text, place)
    if colon is None:
        raise _unexpected(text, _after(_SPACE, text, place), ":")
    value, end = _value(text, colon.end())
    return key, value, end


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
        scan = _Scan(_DEEP)
        if not scan.ended(text, place):
            raise json.JSONDecodeError(_OPEN, text, place) from None
        return DEEP, scan.place


def _may_be_cut(error: json.JSONDecodeError, text: str) -> bool:
    """Whether there may be an error only because the text is not whole."""
    return error.pos >= len(text) - _UNSURE or error.msg.startswith(("Unterminated string", _OPEN))


def _unexpected(text: str, place: int, wanted: str) -> json.JSONDecodeError:
    got = repr(text[place]) if place < len(text) else "the end of the file"
    return json.JSONDecodeError(f"got {got} instead of {' or '.join(map(repr, wanted))}", text, place)


def _after(pattern: re.Pattern[str], text: str, place: int) -> int:
    """Where the match of a pattern that always matches ends."""
    match = pattern.match(text, place)
    return match.end() if match else place
