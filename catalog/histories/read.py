"""Item histories from files: which reader a file gets, and all of them as one stream."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, groupby
from pathlib import Path
from typing import IO

from ..errors import HistoryError
from ..records import STDIN, Reject, beginning
from ..records import is_regular as is_regular_here
from .formats import read_atspeed, read_jsonl, read_lcrec, read_minionerec
from .parquet import read_parquet
from .recognise import HEAD, check_format, fitting_format
from .requests import HistoryRequest
from .storage import Place, Remote, StorageError, opened

__all__ = ["FORMATS", "HistoryRequest", "Reject", "read_histories"]

FORMATS = {  # and the file names they are known by
    "jsonl": (".jsonl", ".ndjson"),
    "lcrec": (".inter.json",),
    "atspeed": (".txt",),
    "minionerec": (".csv",),
    "parquet": (".parquet",),
}
Outcomes = Iterator[HistoryRequest | Reject]
_BY_FILE = {"jsonl": read_jsonl, "lcrec": read_lcrec, "minionerec": read_minionerec}


def read_histories(
    paths: Sequence[Place],
    *,
    format: str | None = None,
    item_base: int = 0,
    keep_read: bool = False,
    stdin: IO[bytes] | None = None,
) -> Outcomes:
    """Stream the requests of history files (paths, or `Remote` ones), and a `Reject` for every line that is none.

    A file's format is told by its name unless `format` (a key of `FORMATS`) says it; "-" is `stdin`
    (by default the process's own), JSON lines unless said. Files are read one after another, except
    that neighbouring AtSpeed files are joined per user. `item_base` is AtSpeed's first item number:
    item n is the index's key n - item_base.

    Raises `HistoryError`: at once for a missing file, an unknown format, a file that begins like another one, or a
    misplaced `item_base`; while reading, where a file cannot be read on. With `keep_read`, a `Reject` stands for the
    `rest` of such a file if anything has been read before, and the next file follows; but what object storage does not
    deliver (`StorageError`) may be there the next time.
    """
    formats = formats_of(paths, format, item_base)
    stream = _streams(list(zip(paths, formats, strict=True)), item_base, stdin or sys.stdin.buffer)
    return _kept(stream) if keep_read else chain.from_iterable(outcomes for _, outcomes in stream)


def formats_of(paths: Sequence[Place], format: str | None, item_base: int, *, fetch: bool = True) -> list[str]:
    """Each file's format. Raises what `read_histories` raises at once; fetch: of `Remote` files, too."""
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
        if isinstance(path, Path) and path != STDIN and (path.is_dir() or not path.exists()):  # a named pipe will do
            got = "is a directory" if path.exists() else "does not exist"
            raise HistoryError(f"{path}: {got}; expected a history file. Check the path.")
        if isinstance(path, Remote) and not fetch:
            continue
        if is_regular(path):
            head = _head(path)
            check_format(str(path), head, kind, whole=len(head) < HEAD)
        elif kind == "parquet":
            raise HistoryError(f"{path}: not a regular file, which Parquet needs. Write it to one.")
    return formats


def joined(paths: Sequence[Place], formats: Sequence[str]) -> list[list[Place]]:
    """The files that are read together: neighbouring AtSpeed files, and every other one by itself."""
    found: list[list[Place]] = []
    for kind, group in groupby(zip(paths, formats, strict=True), key=lambda file: file[1]):
        files = [path for path, _ in group]
        found += [files] if kind == "atspeed" else [[path] for path in files]
    return found


def is_regular(place: Place) -> bool:
    """Whether a file can be read twice."""
    return isinstance(place, Remote) or is_regular_here(place)


def _format_of(path: Place) -> str:
    if path == STDIN:
        return "jsonl"
    for name, endings in FORMATS.items():
        if path.name.lower().endswith(endings):
            return name
    known = "; ".join(f"{name} ({', '.join(endings)})" for name, endings in FORMATS.items())
    fits = fitting_format(_head(path)) if is_regular(path) else None
    hint = f" Its beginning fits --format {fits}." if fits else ""
    raise HistoryError(f"{path}: the name does not tell the format. Pass --format with one of: {known}.{hint}")


def _head(path: Place) -> bytes:
    with opened(path, sys.stdin.buffer) as file:
        return file.read(HEAD)


def _streams(files: list[tuple[Place, str]], item_base: int, stdin: IO[bytes]) -> Iterator[tuple[str, Outcomes]]:
    """A stream for every file, and one for neighbouring AtSpeed files; each with its (first) file's name."""
    kinds = dict(files)
    for paths in joined(*zip(*files, strict=True)):
        path = paths[0]
        if kinds[path] == "atspeed":
            yield str(path), _joined(paths, item_base, stdin)
        else:
            yield str(path), read_parquet(path) if kinds[path] == "parquet" else _read(path, kinds[path], stdin)


def _read(path: Place, kind: str, stdin: IO[bytes]) -> Outcomes:
    with opened(path, stdin) as file:
        _check_piped(path, file, kind)
        yield from _BY_FILE[kind](str(path), file)


def _joined(paths: list[Place], item_base: int, stdin: IO[bytes]) -> Outcomes:
    with ExitStack() as stack:
        files = [(str(path), stack.enter_context(opened(path, stdin))) for path in paths]
        for path, (_, file) in zip(paths, files, strict=True):
            _check_piped(path, file, "atspeed")
        yield from read_atspeed(files, item_base)


def _check_piped(path: Place, file: IO[bytes], kind: str) -> None:
    """What `read_histories` does for files: see `check_format`."""
    if not is_regular(path):
        check_format(str(path), beginning(file), kind, whole=False)


def _kept(streams: Iterator[tuple[str, Outcomes]]) -> Outcomes:
    """All of the streams; an error behind the first outcome is the last of its stream."""
    began = False
    for name, stream in streams:
        line = 0
        try:
            for outcome in stream:
                yield outcome
                began, line = True, outcome.line
        except HistoryError as error:
            if not began or isinstance(error, StorageError):
                raise
            yield Reject(line, f"what follows cannot be read: {error}", "", name, rest=True)
