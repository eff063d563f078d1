"""Files in object storage, named by URIs (`s3://bucket/users/`), read through pyarrow (needs the extra `parquet`).

Which stores there are, and where credentials come from, is pyarrow's matter: its documentation of `pyarrow.fs` says it.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from ..errors import HistoryError, said
from ..extras import install
from ..records import STDIN
from ..records import opened as opened_here

BLOCK = 1 << 20  # bytes read ahead
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
HIDDEN = ("_", ".")  # how names begin of what programs leave beside their data


class StorageError(HistoryError):
    """What a file holds could not be fetched; nothing is said of the file."""


@dataclass(frozen=True)
class Remote:
    """A file, or a folder of files, in object storage."""

    uri: str

    def __str__(self) -> str:
        """The URI without what may be secret in it."""
        parts = urlsplit(self.uri)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return urlsplit(self.uri).path.rstrip("/").rpartition("/")[2]

    def files(self) -> list["Remote"]:
        """Itself, or all files of the folder that it is, by name. Raises `StorageError`."""
        system, path, fs = self._place()
        with _told(self):
            if system.get_file_info(path).type == fs.FileType.File:
                return [self]
            found = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        inside = (info.path.removeprefix(path).lstrip("/") for info in found if info.type == fs.FileType.File)
        names = sorted(name for name in inside if not _hidden(name))
        if not names:
            raise StorageError(f"{self}: there is no such file, nor a folder with files. Check the URI.")
        return [self.within(name) for name in names]

    def within(self, name: str) -> "Remote":
        """What is in the folder that it is."""
        parts = urlsplit(self.uri)
        return Remote(urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}")))

    def identity(self) -> str:
        """What tells that a file was written again: its size, and when. Raises `StorageError`."""
        system, path, _ = self._place()
        with _told(self):
            info = system.get_file_info(path)
            return f"{info.size} bytes of {info.mtime_ns}"

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """The file to read. Raises `StorageError` where it cannot be opened, or reading fails later."""
        system, path, _ = self._place()
        with _told(self):
            raw = system.open_input_file(path)
        with io.BufferedReader(_Raw(raw, self), BLOCK) as file:
            yield file

    def _place(self) -> tuple[Any, str, Any]:
        """The file system, the path in it, and pyarrow's module of them."""
        try:
            fs = import_module("pyarrow.fs")
        except ImportError:
            raise HistoryError(f"{self}: reading it needs pyarrow. Run: {install('parquet')}") from None
        with _told(self):
            system, path = fs.FileSystem.from_uri(self.uri)
        return system, path, fs


Place = Path | Remote  # where a file of histories is


def place_of(text: str) -> Place:
    """A path, or a URI."""
    return Remote(text) if SCHEME.match(text) else Path(text)


def files_of(places: list[Place]) -> list[Place]:
    """The files there are: of a folder, all that are in it, by name, hidden ones left out.

    Raises `HistoryError` for a path that is not there and for a folder without any, and `StorageError` where that
    cannot be told.
    """
    found: list[Place] = []
    for place in places:
        if isinstance(place, Remote):
            found += place.files()
        elif place != STDIN and not place.exists():
            raise HistoryError(f"{place}: does not exist; expected a history file, or a folder. Check the path.")
        elif place.is_dir():
            inside = sorted(path for path in place.rglob("*") if path.is_file())
            files = [path for path in inside if not _hidden(str(path.relative_to(place)))]
            if not files:
                raise HistoryError(f"{place}: there is no file in this folder; expected history files. Check the path.")
            found += files
        else:
            found.append(place)
    return found


@contextmanager
def opened(place: Place, stdin: IO[bytes]) -> Iterator[IO[bytes]]:
    """A file of histories, or standard input; trouble in reading it is a `HistoryError`."""
    with place.opened() if isinstance(place, Remote) else opened_here(place, stdin, HistoryError) as file:
        yield file


class _Raw(io.RawIOBase):
    """pyarrow's file as Python's."""

    def __init__(self, file: Any, place: Remote) -> None:
        self._file, self._place = file, place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        with _told(self._place):
            return int(self._file.readinto(buffer))

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextmanager
def _told(place: Remote) -> Iterator[None]:
    """A library's error as ours; pyarrow's exceptions have no common base."""
    try:
        yield
    except HistoryError:
        raise
    except Exception as error:
        raise StorageError(
            f"{place}: cannot be read: {said(error)}. Check the URI, the credentials and the network; expected such as "
            "s3://bucket/histories.jsonl (with ?endpoint_override=HOST:PORT&scheme=http for a server of your own)."
        ) from None


def _hidden(name: str) -> bool:
    return any(part.startswith(HIDDEN) for part in name.split("/"))
