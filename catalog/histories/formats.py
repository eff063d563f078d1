"""How history files are read: one streaming reader for each format that is text.

A reader takes (name, binary file) and yields requests, and a `Reject` for every line that is none.
"""

import ast
import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO

import msgspec

from ..errors import HistoryError
from ..items import some
from ..records import LONGEST, SHOWN, Reject, decoded, numbered_lines, read_records, shown
from .members import DEEP, LONG, members
from .requests import EXPECTED, HistoryEntry, Outcome, accepted, request_or_reject
from .spill import Groups, Seen, database

BAD_BYTE = re.compile("[\udc80-\udcff]")  # as surrogateescape has it
INTEGERS = re.compile(r"\[[0-9, ]*\]")  # a list that Python and JSON read alike
_ENTRY = r"""(?:[-+]?[0-9]+|'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*")"""
LITERALS = re.compile(rf"[ \t]*\[\s*(?:{_ENTRY}\s*,\s*)*(?:{_ENTRY}\s*)?\]\s*", re.DOTALL)  # a list as Python writes it
STRANGE = re.compile(r"""\\(?:([4-7][0-7]{2})|([^\r\n\\'"abfnrtvxNuU0-7])|.)""", re.DOTALL)  # escapes, by group
WARNED = re.compile(r"\\|[0-9]\.?[A-Za-z]")  # in other literals: what Python's compiler may warn of


def read_jsonl(name: str, file: IO[bytes]) -> Iterator[Outcome]:
    """JSON lines: {"user": ..., "items": [...]}, if wanted with "k", "allow", "deny", "exclude_history" and,
    in a dataset, "labels"; blank lines are skipped."""
    for record in read_records(name, file, HistoryEntry, EXPECTED):
        yield record if isinstance(record, Reject) else accepted(record.content, record.line, record.raw, name)


def read_lcrec(name: str, file: IO[bytes]) -> Iterator[Outcome]:
    """LC-Rec's *.inter.json: one object, {"0": [11, 4, ...], ...}, user to items.

    Its entries are read one after another; a user named again is a reject.
    Raises `HistoryError` where the file stops being such an object.
    """
    with database() as connection:
        seen = Seen(connection)
        for user, items, line, raw in members(name, file):
            if items is LONG:
                reason = f"longer than {LONGEST >> 20} MiB; expected a shorter history"
                yield Reject(line, reason, _shown(raw) + " ...", name)
            elif not raw.isascii() and BAD_BYTE.search(raw):
                yield Reject(line, "not UTF-8; expected UTF-8", _shown(raw), name)
            elif before := seen.first(user, line):
                reason = f"the user {user!r} is there already, on line {before}; expected every user once"
                yield Reject(line, reason, raw, name)
            elif items is DEEP:
                yield Reject(line, "nested too deeply; expected user to [items, ...]", raw, name)
            else:
                yield request_or_reject(user, items, line, raw, name)


def _shown(text: str) -> str:
    return shown(text.encode("utf-8", "surrogateescape"))


def read_atspeed(files: Sequence[tuple[str, IO[bytes]]], item_base: int) -> Iterator[Outcome]:
    """AtSpeed's sequential_*.txt: `user item item ...`, item numbers counted from `item_base`.

    Lines of one file are requests of their own, read one at a time. Several files (train, then
    valid) are joined: one request a user, with all its items in the order of the files, users in
    order of first appearance, line numbers from there; a rejected line is left out of the join.
    """
    with ExitStack() as stack:
        groups = Groups(stack.enter_context(database())) if len(files) > 1 else None
        for place, (name, file) in enumerate(files):
            for number, line in numbered_lines(name, file):
                if not line or line.isspace():
                    continue
                parsed = _atspeed_line(line, number, name, item_base)
                if isinstance(parsed, Reject):
                    yield parsed
                elif groups is None:
                    yield request_or_reject(parsed[0], parsed[1:], number, shown(line), name)
                else:  # a line is shown where its user has no items at all
                    raw = shown(line) if len(parsed) == 1 else ""
                    groups.add(parsed[0], (place, number, " ".join(parsed[1:]), raw))
        for user, lines in groups or ():
            place, number, _, raw = lines[0]
            items = [item for line in lines for item in line[2].split()]
            yield request_or_reject(user, items, number, raw, files[place][0])


def _atspeed_line(line: bytes, number: int, name: str, item_base: int) -> list[str] | Reject:
    """[user, item, ...], the items as keys of the index."""
    text = decoded(line, number, name)
    if isinstance(text, Reject):
        return text
    fields = text.split()
    if not fields:
        return Reject(number, "got control characters only; expected `user item item ...`", shown(line), name)
    user, *items = fields
    digits = "".join(items)
    if digits.isascii() and digits.isdigit() and max(map(len, items)) < 19:
        numbers = [int(item) - item_base for item in items]
        if min(numbers) >= 0:
            return [user, *map(str, numbers)]
    for item in items:
        if not (item.isascii() and item.isdigit() and len(item) < 19 and int(item) >= item_base):
            reason = (
                f"got the item {item[:80]!r}; expected `user item item ...`, items being whole numbers from {item_base}"
            )
            return Reject(number, reason, text, name)
    return [user]


def read_minionerec(name: str, file: IO[bytes]) -> Iterator[Outcome]:
    """MiniOneRec's CSV: one request a row, `history_item_id` being a Python list literal, `item_id` its label.

    Raises `HistoryError` when the header lacks `user_id` or `history_item_id`.
    """
    lines = _Lines(name, file)
    rows = csv.reader(lines, strict=True)
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise HistoryError(f"{name}, line 1: not a CSV header: {error}.") from None
    if not {"user_id", "history_item_id"} <= set(header):
        raise HistoryError(
            f"{name}, line 1: got the columns [{some(header)}]; expected user_id and history_item_id among them."
        )
    user, history = header.index("user_id"), header.index("history_item_id")
    while True:
        line = lines.number + 1
        lines.held.clear()
        try:
            row = next(rows, None)
        except csv.Error as error:
            reason = f"not a CSV row: {error}. Is a quote not closed? (Very long histories: use JSON lines.)"
            yield Reject(line, reason, lines.text(), name)
            continue
        if row is None:
            return
        if row:
            yield _csv_row(row, header, user, history, line, lines.text(), name)


class _Lines:
    """A file's lines for `csv`; those of the record at hand are held."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._lines = numbered_lines(name, file)
        self.number, self.held = 0, bytearray()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        """Raises `csv.Error` where the record is too long."""
        self.number, line = next(self._lines)
        if len(self.held) + len(line) > LONGEST:
            self.held[SHOWN:] = b""
            self.held += line[: SHOWN - len(self.held)] + b" ...\n"
            raise csv.Error(f"longer than {LONGEST >> 20} MiB")
        self.held += line + b"\n"
        return line.decode("utf-8", "surrogateescape") + "\n"

    def text(self) -> str:
        """The lines as text, whatever their bytes."""
        return shown(bytes(self.held.removesuffix(b"\n")))


def _csv_row(row: list[str], header: list[str], user: int, history: int, line: int, raw: str, name: str) -> Outcome:
    if len(row) != len(header):
        return Reject(line, f"got {len(row)} columns; expected the header's {len(header)}", raw, name)
    try:
        "".join(row).encode("utf-8")
    except UnicodeEncodeError:
        return Reject(line, "not UTF-8; expected UTF-8", raw, name)
    items = _literal(row[history])
    if not isinstance(items, list):
        reason = f"history_item_id is {row[history][:80]!r}; expected a list such as [926, 38]"
        return Reject(line, reason, raw, name)
    label = row[header.index("item_id")] if "item_id" in header else ""
    labels = [label] if label else None
    return request_or_reject(row[user], items, line, raw, name, labels=labels)


def _literal(text: str) -> object:
    """What a Python literal stands for; None where it is none."""
    try:
        if INTEGERS.fullmatch(text):
            return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        pass
    if LITERALS.fullmatch(text):
        text = STRANGE.sub(_usual, text)
    elif WARNED.search(text):
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _usual(escape: re.Match[str]) -> str:
    """An escape for the same text, of which the compiler does not warn: to silence it would change all threads."""
    octal, unknown = escape.groups()
    if octal:
        return f"\\u{int(octal, 8):04x}"
    return "\\" + escape[0] if unknown else escape[0]
