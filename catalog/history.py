"""Item histories from files: which reader a file gets, and all of them as one stream."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO

from .errors import HistoryError
from .formats import HistoryRequest, read_atspeed, read_jsonl, read_lcrec, read_minionerec
from .parquet import read_parquet
from .records import STDIN, Reject

__all__ = ["FORMATS", "HistoryRequest", "Reject", "read_histories"]

FORMATS = {  # and the file names they are known by
    "jsonl": (".jsonl", ".ndjson"),
    "lcrec": (".inter.json",),
    "atspeed": (".txt",),
    "minionerec": (".csv",),
    "parquet": (".parquet",),
}
_BY_FILE = {"jsonl": read_jsonl, "lcrec": read_lcrec, "minionerec": read_minionerec}


def read_histories(
    paths: Sequence[Path], *, format: str | None = None, item_base: int = 0, stdin: IO[bytes] | None = None
) -> Iterator[HistoryRequest | Reject]:
    """Stream the requests of history files, and a `Reject` for every line that is none.

    A file's format is told by its name unless `format` (a key of `FORMATS`) says it; "-" is `stdin`
    (by default the process's own), JSON lines unless said. Files are read one after another, except
    that neighbouring AtSpeed files are joined per user. `item_base` is AtSpeed's first item number:
    item n is the index's key n - item_base.

    Raises `HistoryError`: at once for a missing file, an unknown format or a misplaced `item_base`;
    while reading, where a file as a whole turns out to be unreadable.
    """
    if not paths:
        raise HistoryError("got no history file; expected at least one, or - for standard input.")
    if format is not None and format not in FORMATS:
        raise HistoryError(f"got the format {format!r}; expected one of {', '.join(FORMATS)}.")
    formats = [format or _format_of(path) for path in paths]
    if item_base and set(formats) != {"atspeed"}:
        others = ", ".join(str(path) for path, f in zip(paths, formats, strict=True) if f != "atspeed")
        raise HistoryError(f"an item base of {item_base} is for AtSpeed files only; got {others}. Leave it out.")
    for path, kind in zip(paths, formats, strict=True):
        if path == STDIN and kind == "parquet":
            raise HistoryError("Parquet cannot be read from standard input; give the file's path.")
        if path != STDIN and (path.is_dir() or not path.exists()):  # a named pipe will do
            got = "is a directory" if path.exists() else "does not exist"
            raise HistoryError(f"{path}: {got}; expected a history file. Check the path.")
    return _stream(list(zip(paths, formats, strict=True)), item_base, stdin or sys.stdin.buffer)


def _format_of(path: Path) -> str:
    if path == STDIN:
        return "jsonl"
    for name, endings in FORMATS.items():
        if path.name.lower().endswith(endings):
            return name
    known = "; ".join(f"{name} ({', '.join(endings)})" for name, endings in FORMATS.items())
    raise HistoryError(f"{path}: the name does not tell the format. Pass --format with one of: {known}.")


@contextmanager
def _open(path: Path, stdin: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file, or standard input (left open); trouble in reading it is a `HistoryError`."""
    try:
        if path == STDIN:
            yield stdin
        else:
            with path.open("rb") as file:
                yield file
    except OSError as error:
        raise HistoryError(f"{path}: cannot be read: {error.strerror}.") from None


def _stream(files: list[tuple[Path, str]], item_base: int, stdin: IO[bytes]) -> Iterator[HistoryRequest | Reject]:
    for kind, group in groupby(files, key=lambda file: file[1]):
        paths = [path for path, _ in group]
        if kind == "parquet":
            for path in paths:
                yield from read_parquet(path)
        elif kind == "atspeed":
            with ExitStack() as stack:
                yield from read_atspeed([(str(p), stack.enter_context(_open(p, stdin))) for p in paths], item_base)
        else:
            for path in paths:
                with _open(path, stdin) as file:
                    yield from _BY_FILE[kind](str(path), file)
