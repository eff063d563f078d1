"""JSON lines: one record a line, and a `Reject` for every line that is none."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Generic, TypeVar

import msgspec

from .errors import HistoryError

T = TypeVar("T")


@dataclass(frozen=True)
class Reject:
    """A line that cannot be used, and why."""

    line: int
    reason: str
    raw: str  # the line's text; bytes that are not UTF-8 as \\xff
    source: str  # the file's name


@dataclass(frozen=True)
class Record(Generic[T]):
    """A line that can."""

    line: int  # counted from 1
    raw: str
    content: T


def read_records(name: str, file: IO[bytes], kind: type[T], expected: str) -> Iterator[Record[T] | Reject]:
    """Every line of a file as a `kind`, or as a reject that says what was `expected`; blank lines are skipped."""
    decoder = msgspec.json.Decoder(kind)
    for number, line in numbered_lines(name, file):
        if not line.strip():
            continue
        try:
            # as text, because msgspec does not look at the encoding of what it skips
            yield Record(number, shown(line), decoder.decode(line.decode("utf-8")))
        except UnicodeDecodeError as error:
            yield Reject(number, f"not UTF-8 (byte {error.start}); expected UTF-8", shown(line), name)
        except (msgspec.MsgspecError, RecursionError) as error:
            yield Reject(number, f"{error}; {expected}", shown(line), name)


def numbered_lines(name: str, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their ends, and without a byte order mark. Raises `HistoryError` for UTF-16."""
    for number, line in enumerate(file, 1):
        if number == 1:
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise HistoryError(f"{name}: the file is UTF-16; expected UTF-8. Save it as UTF-8.")
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield number, line.rstrip(b"\r\n")


def shown(line: bytes) -> str:
    """A line as text, whatever its bytes."""
    return line.decode("utf-8", "backslashreplace")
