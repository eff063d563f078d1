"""Artifacts that are whole or absent (written beside their final name, then renamed), and their configuration."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO

import msgspec

from .claims import claim
from .disk import told_if_full
from .errors import OutputTakenError, SpecBeamError
from .temporaries import OLD, temporary_directory, temporary_file

BLOCK = 1 << 20  # bytes that are read at a time


class Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Configuration read from or written to JSON: immutable, and an unknown key is an error."""


@contextmanager
def whole_file(path: Path, *, replace: bool) -> Iterator[IO[bytes]]:
    """Open a temporary sibling of `path` for writing; it gets its name, `path`, only when it is complete.

    replace: whether it may take the place of a file. If not, and one appeared meanwhile, that one stays: the last step
    is a hard link, which replaces nothing (on file systems without hard links an empty file claims the name). Raises
    `OutputTakenError` then, after the finished file was kept beside it, and `DiskFullError` on a full disk.
    """
    with told_if_full(path), temporary_file(path) as (file, part):
        yield file
        file.flush()
        os.fsync(file.fileno())
        place_file(part, path, replace=replace)


def place_file(part: Path, path: Path, *, replace: bool) -> None:
    """Give a finished file its name, as `whole_file` does."""
    _placed(part, path, os.replace if replace and not path.is_dir() else _link)


@contextmanager
def whole_directory(path: Path, *, kind: str, replace: bool = False, late: bool = False) -> Iterator[Path]:
    """Yield an empty temporary sibling of `path`; rename it to `path` only on success.

    kind: a file that every directory of this kind holds, e.g. "manifest.json". Raises `SpecBeamError`
    before anything is written when `path` exists and `replace` is false, or when what is there is of
    another kind: --overwrite must not cost anybody a directory that SpecBeam never wrote. The last step sees to the
    same: what appeared meanwhile stays (POSIX's rename replaces no folder that holds anything), and the finished
    directory is kept beside it, see `OutputTakenError`. Two runs never write one directory: see `claim`.
    late: the work is done already, and `path` was looked at before it: what is there by now appeared meanwhile.
    """
    with claim(path), told_if_full(path):
        if not late:
            check_replaceable(path, kind=kind, replace=replace)
        with temporary_directory(path) as part:
            with told_if_full(path):  # as long as what fills it is there
                yield part
            mode = part.stat().st_mode & 0o666
            for file in part.rglob("*"):
                if file.is_file():  # some libraries write for their owner alone, and servers read artifacts, too
                    os.chmod(file, mode)
            place_directory(part, path, kind=kind, replace=replace)


def place_directory(part: Path, path: Path, *, kind: str, replace: bool) -> None:
    """Give a finished folder its name, as `whole_directory` does."""
    if replace and os.path.lexists(path):
        _exchange(part, path, kind)
    else:
        _placed(part, path, _rename)


def check_replaceable(path: Path, *, kind: str, replace: bool) -> None:
    """Raise `SpecBeamError` unless `path` is free, or may be replaced: see `whole_directory`."""
    if not os.path.lexists(path):
        return
    if not replace:
        raise SpecBeamError(f"{path} exists already. Choose another name or pass --overwrite to replace it.")
    if not path.is_dir() or (any(path.iterdir()) and not (path / kind).exists()):
        raise SpecBeamError(f"{path} is not replaced: it has no {kind}, so SpecBeam did not write it. Choose another.")


def _exchange(part: Path, path: Path, kind: str) -> None:
    """Put a folder into another one's place; if that is of another kind by now, it stays."""
    with temporary_directory(path, OLD) as old:
        aside = old / path.name
        os.rename(path, aside)
        try:
            check_replaceable(aside, kind=kind, replace=True)
            os.rename(part, path)
        except BaseException as error:
            os.rename(aside, path)
            if isinstance(error, SpecBeamError):
                raise _kept(part, path, _rename) from None
            raise


def _placed(part: Path, path: Path, place: Callable[[Path, Path], None]) -> None:
    """Give finished work its name; raise `OutputTakenError` where something has that name by now."""
    try:
        place(part, path)
    except OSError as error:
        if not os.path.lexists(path):
            raise
        raise _kept(part, path, place) from error


def _kept(part: Path, path: Path, place: Callable[[Path, Path], None]) -> OutputTakenError:
    """Give finished work another name: the first that is free."""
    for number in count(1):
        kept = path.with_name(f"{path.name}.kept-{number}")
        if os.path.lexists(kept):
            continue
        place(part, kept)
        return OutputTakenError(
            f"{path} appeared while this ran, and is not replaced. What was made is complete and kept in {kept}: move "
            "it where you want it."
        )
    raise AssertionError


def _link(part: Path, path: Path) -> None:
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links here
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
        os.replace(part, path)
        return
    os.unlink(part)


def _rename(part: Path, path: Path) -> None:
    if os.path.lexists(path):  # an empty folder would be replaced
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    os.rename(part, path)


def sha256(path: Path, progress: Callable[[int], object] = lambda size: None) -> str:
    """Hexadecimal SHA-256 of a file's bytes. `progress` is told of every block how many bytes it has."""
    found, block = hashlib.sha256(), bytearray(BLOCK)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            found.update(memoryview(block)[:size])
            progress(size)
    return found.hexdigest()
