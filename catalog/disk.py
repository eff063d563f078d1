"""A full disk, told as such, whatever a library makes of it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DiskFullError, SpecBeamError

FULL = (errno.ENOSPC, errno.EDQUOT)
# What libraries written in other languages make of the two: SafetensorError, onnxruntime's Fail, ...
SAID = (os.strerror(errno.ENOSPC).lower(), os.strerror(errno.EDQUOT).lower(), "os error 28", "os error 122")
LEAST = 64 << 10  # bytes: with less room than this, it is the disk that a failing write speaks of


@contextmanager
def told_if_full(path: Path) -> Iterator[None]:
    """Raise `DiskFullError` in place of whatever is raised because there is no space left where `path` is written."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if not _means_full(error, path):
            raise
        raise DiskFullError(
            f"No space left on {_file_system(path)} while writing {path}. Free some space there, or choose an output "
            "elsewhere, and run it again."
        ) from error


def _means_full(error: BaseException, path: Path) -> bool:
    first = error
    for cause in _chain(error):
        said = str(cause).lower()
        if (isinstance(cause, OSError) and cause.errno in FULL) or any(words in said for words in SAID):
            return True
        first = cause
    # Some libraries keep the reason to themselves: then it is the disk if there is no room.
    clear = isinstance(first, SpecBeamError) or (isinstance(first, OSError) and first.errno is not None)
    return not clear and _free(path) < LEAST


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from, the first one last."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _free(path: Path) -> int:
    figures = os.statvfs(_existing(path))
    return figures.f_bavail * figures.f_frsize


def _file_system(path: Path) -> Path:
    """Where the file system that holds `path` is mounted."""
    folder = _existing(path).resolve()
    return next(parent for parent in (folder, *folder.parents) if os.path.ismount(parent))
