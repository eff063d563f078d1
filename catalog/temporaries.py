"""Temporary siblings of what is being written. Each is locked by its writer, so that those of the dead can be told.

A lock (`flock`) goes with the open file: the kernel drops it when the process ends, however it ends. Where a file
system has no such locks for them (NFS has none on what is open for reading), nothing is taken for a dead writer's.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PART, OLD = ".specbeam-part", ".specbeam-old"  # what is being written; what is being replaced
LOCK = ".specbeam-lock"  # of `claims`
OURS = re.compile(rf"\.(?P<output>.+)(?:\.[0-9a-f]{{8}}(?:{re.escape(PART)}|{re.escape(OLD)})|{re.escape(LOCK)})")


@contextmanager
def temporary_file(path: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A new file beside `path`, open for writing, and its name; removed in the end if it is still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    handle, part = _locked(path, PART, _new_file)
    with os.fdopen(handle, "wb") as file:
        try:
            yield file, part
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def temporary_directory(path: Path, ending: str = PART) -> Iterator[Path]:
    """A new folder beside `path`; removed in the end if it is still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    handle, part = _locked(path, ending, _new_directory)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what dead writers have left in a folder; what they had moved away to replace it is put back."""
    found: list[tuple[Path, str]] = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        found += [(Path(entry.path), ours["output"]) for entry in entries if (ours := OURS.fullmatch(entry.name))]
    for left, output in found:
        with suppress(OSError), _taken_over(left):
            replaced = left / output
            if left.suffix == OLD and os.path.lexists(replaced) and not os.path.lexists(folder / output):
                os.rename(replaced, folder / output)
            shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextmanager
def _taken_over(name: Path) -> Iterator[None]:
    """Raises OSError where its writer lives, or the name is another one's by now."""
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_still(handle, name):
            raise FileNotFoundError(name)
        yield
    finally:
        os.close(handle)


def _locked(path: Path, ending: str, make: Callable[[Path], int]) -> tuple[int, Path]:
    while True:
        name = path.with_name(f".{path.name}.{os.urandom(4).hex()}{ending}")
        with suppress(FileExistsError, FileNotFoundError):
            handle = make(name)
            with suppress(OSError):  # a file system without locks: then nobody sweeps there, either
                fcntl.flock(handle, fcntl.LOCK_EX)
            if is_still(handle, name):
                return handle, name
            os.close(handle)  # swept before it was locked


def is_still(handle: int, name: Path) -> bool:
    """Whether a file or folder that was opened by its name still has it, now that it is locked."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(name))
    except FileNotFoundError:
        return False


def _new_file(name: Path) -> int:
    # The kernel applies the umask; asking for it would change it for a moment, for all threads.
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _new_directory(name: Path) -> int:
    name.mkdir()
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
