"""What has been looked at once: hashes and checks of large files, remembered beside them for as long as these stay.

A file counts as the one that was looked at where its size, its times of modification and of change, and its inode are
the same; a copy is another file. Who can write there could write the files' hashes as well: this saves time, and takes
the place of no check that an artifact has come whole.
"""

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, final

import msgspec

from ...catalog.bounds import DAMAGED
from ...catalog.errors import SpecBeamError
from ...catalog.files import Frozen, whole_file
from ...catalog.user_cache import prune, user_cache

SCHEMA = 1  # another one's records are not read, and replaced
NAME = ".specbeam-looked-at.json"  # in the artifact's folder; in the user's cache where that cannot be written
ENDING = ".looked-at.json"
LARGE = 16 << 20  # bytes of a file that is remembered: smaller ones are looked at in no time
FRESH_NS = 2 * 10**9  # what was changed so lately may change once more without another time: clocks of files are coarse
LARGEST = 1 << 20  # bytes of a record that can be ours
MOST, MOST_FILES = 512, 256  # things in a record; records in the cache


class _Record(Frozen, frozen=True):
    schema_version: Annotated[int, msgspec.Meta(ge=SCHEMA, le=SCHEMA)]
    looked_at: dict[str, tuple[str, ...]]  # what was looked at, and the marks of the files it was looked at in


@final
class Remembered:
    """What was looked at in one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._began = time.time_ns()

    def knows(self, what: str, files: Mapping[Path, str]) -> bool:
        """Whether this was looked at in these files as they are now, given with their hashes, and found good."""
        marks = _marks(files)
        return marks is not None and any(_read(place).get(what) == marks for place in self._places())

    def note(self, what: str, files: Mapping[Path, str]) -> None:
        """Remember that it was looked at since this object was made, and found good; where that cannot be, do not."""
        marks = _marks(files)
        if marks is None or any(_changed(file) > self._began - FRESH_NS for file in files):
            return
        for place in self._places():
            if os.path.lexists(place) and not _is_ours(place):
                continue
            known = {**_read(place), what: marks}
            with suppress(OSError, SpecBeamError):
                if place.parent != self._root:
                    place.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(place, replace=True) as file:
                    file.write(msgspec.json.encode(_Record(schema_version=SCHEMA, looked_at=_newest(known))))
                if place.parent != self._root:
                    prune(place.parent, ENDING, MOST_FILES)
                return

    def _places(self) -> list[Path]:
        """Where a record may be, the first choice first."""
        cache, places = user_cache(), [self._root / NAME]
        if cache is not None:
            name = hashlib.sha256(os.path.realpath(self._root).encode("utf-8", "surrogateescape")).hexdigest()[:32]
            places.append(cache / f"{name}{ENDING}")
        return places


def _marks(files: Mapping[Path, str]) -> tuple[str, ...] | None:
    """What a file is told by; None where one is not there."""
    try:
        found = [(digest, file.stat()) for file, digest in files.items()]
    except OSError:
        return None
    return tuple(
        f"{digest} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}" for digest, stat in found
    )


def _changed(file: Path) -> int:
    """When it was changed last, in nanoseconds."""
    stat = file.stat()
    return max(stat.st_mtime_ns, stat.st_ctime_ns)


def _newest(known: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return dict([*known.items()][-MOST:])


def _read(place: Path) -> dict[str, tuple[str, ...]]:
    """A record; nothing where there is none, or it is not ours."""
    with suppress(OSError, *DAMAGED):
        if place.stat().st_size <= LARGEST:
            return msgspec.json.decode(place.read_bytes(), type=_Record).looked_at
    return {}


class _Versioned(msgspec.Struct):
    schema_version: int
    looked_at: dict[str, msgspec.Raw]


def _is_ours(place: Path) -> bool:
    """Whether it is a record, of whichever schema."""
    with suppress(OSError, *DAMAGED):
        if place.is_file() and not place.is_symlink() and place.stat().st_size <= LARGEST:
            msgspec.json.decode(place.read_bytes(), type=_Versioned)
            return True
    return False
