"""The folder in which what may be lost is kept for the next process: the user's cache."""

import os
import sys
from pathlib import Path

VARIABLE, OFF = "SPECBEAM_CACHE", "off"


def user_cache() -> Path | None:
    """The folder that `SPECBEAM_CACHE` names, else `specbeam` where the platform keeps a user's caches.

    None where the variable says "off", or nobody knows the user's home. It need not be there, or be writable.
    """
    said = os.environ.get(VARIABLE)
    if said:
        return None if said == OFF else Path(said)
    kept = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(kept):  # the specification has others ignored
        return Path(kept) / "specbeam"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home.joinpath(*(("Library", "Caches") if sys.platform == "darwin" else (".cache",)), "specbeam")


def prune(folder: Path, ending: str, most: int) -> None:
    """Leave the files with an ending that were written last, so many of them."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ending) and not entry.name.startswith("."):
                found.append((_written(entry), entry.path))
    for _, path in sorted(found, reverse=True)[most:]:
        Path(path).unlink(missing_ok=True)


def _written(entry: "os.DirEntry[str]") -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0
