"""JSON lines: one record a line, and a `Reject` for every line that is none."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import IO, Generic, NamedTuple, TypeVar

import msgspec

from .errors import HistoryError, SpecBeamError
from .packed import refuse_packed
from .repeats import Fields

T = TypeVar("T")
Entry = TypeVar("Entry", bound=msgspec.Struct)
STDIN = Path("-")
LONGEST = 16 << 20  # bytes of a line; of a longer one no more is held
SHOWN = 1000  # characters of it that a reject shows


@dataclass(frozen=True)
class Reject:
    """A line that cannot be used, and why."""

    line: int
    reason: str
    raw: str  # the line's text; bytes that are not UTF-8 as \\xff
    source: str  # the file's name
    rest: bool = False  # it stands for all that follows in the file, which cannot be read


class RejectLine(msgspec.Struct, frozen=True):
    """One line of a rejects file."""

    file: str
    line: int
    reason: str
    raw: str

    @classmethod
    def of(cls, reject: Reject) -> "RejectLine":
        """The line that says why another cannot be used."""
        return cls(reject.source, reject.line, reject.reason, reject.raw)


class Record(NamedTuple, Generic[T]):
    """A line that can."""

    line: int  # counted from 1
    raw: str
    content: T


def read_files(
    paths: Sequence[Path], kind: type[Entry], expected: str, error: type[SpecBeamError], stdin: IO[bytes] | None = None
) -> Iterator[tuple[str, Record[Entry] | Reject]]:
    """The lines of files, one after another, each with its file's name; "-" is `stdin` (by default the process's own).

    Raises `error`: before anything is read, for a file that is not there; while reading, for one that cannot be read.
    """
    for path in paths:
        if path != STDIN and (path.is_dir() or not path.exists()):  # a named pipe will do
            got = "is a directory" if path.exists() else "does not exist"
            raise error(f"{path}: {got}; {expected}, a line each. Check the path.")
    return _lines_of(paths, kind, expected, error, stdin or sys.stdin.buffer)


def _lines_of(
    paths: Sequence[Path], kind: type[Entry], expected: str, error: type[SpecBeamError], stdin: IO[bytes]
) -> Iterator[tuple[str, Record[Entry] | Reject]]:
    for path in paths:
        with opened(path, stdin, error) as file:
            refuse_packed(str(path), beginning(file), error)
            for record in read_records(str(path), file, kind, expected):
                yield str(path), record


def is_regular(path: Path) -> bool:
    """Whether a path is that of a regular file, which can be read twice: "-" is standard input, whatever is in the
    folder."""
    return path != STDIN and path.is_file()


@contextmanager
def opened(path: Path, stdin: IO[bytes], error: type[SpecBeamError]) -> Iterator[IO[bytes]]:
    """The file, or standard input (left open); trouble in reading it is an `error`."""
    try:
        if path == STDIN:
            yield stdin
        else:
            with path.open("rb") as file:
                yield file
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror or cause}. Check the path.") from None


def beginning(file: IO[bytes]) -> bytes:
    """The first bytes of a file, which are not taken from it; none where it does not tell."""
    return file.peek(1) if isinstance(file, BufferedReader) else b""


def read_records(name: str, file: IO[bytes], kind: type[Entry], expected: str) -> Iterator[Record[Entry] | Reject]:
    """Every line of a file as a `kind`, or as a reject that says what was `expected`; blank lines are skipped."""
    decoder, fields = msgspec.json.Decoder(kind), Fields(kind)
    for number, line in numbered_lines(name, file):
        if not line or line.isspace():
            continue
        text = decoded(line, number, name)
        if isinstance(text, Reject):
            yield text
            continue
        try:
            content = decoder.decode(text)
        except (msgspec.MsgspecError, RecursionError) as error:
            yield Reject(number, f"{error}; {expected}", text, name)
            continue
        # There are at least as many colons as keys, and no required key is missing.
        if text.count(":") != fields.required and (twice := fields.repeated(text)):
            yield Reject(number, f"the key {twice!r} occurs more than once; {expected}", text, name)
        else:
            yield Record(number, text, content)


def read_json(path: Path, kind: type[T], expected: str, error: type[SpecBeamError]) -> tuple[T, str]:
    """A file of JSON as a `kind`, and its text. Raises `error` for a file that cannot be read, or is none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return msgspec.json.decode(text, type=kind), text
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror or cause}. Check the path.") from None
    except UnicodeDecodeError as cause:
        raise error(f"{path}: not UTF-8 (byte {cause.start}). Save the file as UTF-8.") from None
    except (msgspec.MsgspecError, RecursionError) as cause:
        raise error(f"{path}: {cause}; {expected}.") from None


def numbered_lines(name: str, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their ends, and without a byte order mark; of one that is too long, more than `LONGEST`
    bytes and not all. Raises `HistoryError` for UTF-16."""
    for number, line in enumerate(iter(partial(file.readline, LONGEST + 2), b""), 1):
        if number == 1:
            refuse_utf16(name, line)
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) > LONGEST and not line.endswith(b"\n"):
            while (rest := file.readline(1 << 20)) and not rest.endswith(b"\n"):
                pass
        yield number, line.rstrip(b"\r\n")


def refuse_utf16(name: str, head: bytes) -> None:
    """Raise `HistoryError` for the beginning of a file that says so."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise HistoryError(f"{name}: the file is UTF-16; expected UTF-8. Save it as UTF-8.")


def decoded(line: bytes, number: int, name: str) -> str | Reject:
    """A line as text, or why it is none."""
    if len(line) > LONGEST:
        reason = f"longer than {LONGEST >> 20} MiB; expected a shorter line. Is a line end missing?"
        return Reject(number, reason, shown(line[:SHOWN]) + " ...", name)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        return Reject(number, f"not UTF-8 (byte {error.start}); expected UTF-8", shown(line), name)


def shown(line: bytes) -> str:
    """A line as text, whatever its bytes."""
    return line.decode("utf-8", "backslashreplace")
