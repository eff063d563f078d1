"""JSON lines: one record a line, and a `Reject` for every line that is none."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Generic, TypeVar

import msgspec

from .errors import HistoryError, SpecBeamError

T = TypeVar("T")
STDIN = Path("-")


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


def read_files(
    paths: Sequence[Path], kind: type[T], expected: str, error: type[SpecBeamError], stdin: IO[bytes] | None = None
) -> Iterator[tuple[str, Record[T] | Reject]]:
    """The lines of files, one after another, each with its file's name; "-" is `stdin` (by default the process's own).

    Raises `error`, before anything is read, for a file that is not there.
    """
    for path in paths:
        if path != STDIN and (path.is_dir() or not path.exists()):  # a named pipe will do
            got = "is a directory" if path.exists() else "does not exist"
            raise error(f"{path}: {got}; {expected}, a line each. Check the path.")
    return _lines_of(paths, kind, expected, stdin or sys.stdin.buffer)


def _lines_of(
    paths: Sequence[Path], kind: type[T], expected: str, stdin: IO[bytes]
) -> Iterator[tuple[str, Record[T] | Reject]]:
    for path in paths:
        with nullcontext(stdin) if path == STDIN else path.open("rb") as file:
            for record in read_records(str(path), file, kind, expected):
                yield str(path), record


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


def read_json(path: Path, kind: type[T], expected: str, error: type[SpecBeamError]) -> tuple[T, str]:
    """A file of JSON as a `kind`, and its text. Raises `error` for a file that cannot be read, or is none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return msgspec.json.decode(text, type=kind), text
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror}. Check the path.") from None
    except UnicodeDecodeError as cause:
        raise error(f"{path}: not UTF-8 (byte {cause.start}). Save the file as UTF-8.") from None
    except (msgspec.MsgspecError, RecursionError) as cause:
        raise error(f"{path}: {cause}; {expected}.") from None


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
