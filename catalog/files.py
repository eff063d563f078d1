"""Artifacts that are whole or absent (written beside their final name, then renamed), and their configuration."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from .errors import SpecBeamError


class Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Configuration read from or written to JSON: immutable, and an unknown key is an error."""


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary sibling of `path` for writing; rename it to `path` only on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def whole_directory(path: Path, *, kind: str, replace: bool = False) -> Iterator[Path]:
    """Yield an empty temporary sibling of `path`; rename it to `path` only on success.

    kind: a file that every directory of this kind holds, e.g. "manifest.json". Raises `SpecBeamError`
    before anything is written when `path` exists and `replace` is false, or when what is there is of
    another kind: --overwrite must not cost anybody a directory that SpecBeam never wrote.
    """
    check_replaceable(path, kind=kind, replace=replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        yield part
        os.chmod(part, 0o777 & ~_umask())
        for file in part.rglob("*"):
            if file.is_file():  # some libraries write for their owner alone, and servers read artifacts, too
                os.chmod(file, 0o666 & ~_umask())
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            os.replace(path, old / path.name)
            try:
                os.replace(part, path)
            except BaseException:
                os.replace(old / path.name, path)
                raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def check_replaceable(path: Path, *, kind: str, replace: bool) -> None:
    """Raise `SpecBeamError` unless `path` is free, or may be replaced: see `whole_directory`."""
    if not path.exists():
        return
    if not replace:
        raise SpecBeamError(f"{path} exists already. Choose another name or pass --overwrite to replace it.")
    if not path.is_dir() or (any(path.iterdir()) and not (path / kind).exists()):
        raise SpecBeamError(f"{path} is not replaced: it has no {kind}, so SpecBeam did not write it. Choose another.")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
