"""The hash of every file of a bundle: taken when it is written, checked when it is used."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ...catalog.bounds import leads_out
from ...catalog.errors import BundleError
from ...catalog.files import sha256
from .facts import FileFacts
from .remembered import LARGE, Remembered


def file_facts(root: Path) -> dict[str, FileFacts]:
    """Hash and size of every file below `root`, by its path in it."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): FileFacts(sha256=sha256(path), bytes=path.stat().st_size) for path in files
    }


def check_file(
    path: Path, facts: FileFacts, remedy: Callable[[], str] | str, root: Path,
    told: Callable[[int], object] = lambda size: None, *, anew: bool = False,
) -> None:  # fmt: skip
    """Raise `BundleError`, naming `remedy`, unless a file below `root` is as it was written; told: as of `sha256`.

    A large file that was, and has not changed since, is not read again (see `remembered`), unless `anew`.
    """

    def again() -> str:
        return f"rite it again with: {remedy if isinstance(remedy, str) else remedy()}"

    if leads_out(path, root):
        raise BundleError(
            f"{path} is a link out of {root}, which is not followed. Put the file itself there, or w{again()}"
        )
    if not path.is_file():
        raise BundleError(f"{path} is missing. W{again()}")
    size = path.stat().st_size
    if size != facts.bytes:
        raise BundleError(f"{path} has {size} bytes, expected {facts.bytes}. W{again()}")
    remembered, what = Remembered(root), f"bytes {path.relative_to(root).as_posix()}"
    large = size >= LARGE
    if large and not anew and remembered.knows(what, {path: facts.sha256}):
        told(size)
        return
    before = path.stat()
    got = sha256(path, told)
    if got != facts.sha256:
        raise BundleError(f"{path} is damaged: its SHA-256 is {got}, expected {facts.sha256}. W{again()}")
    after = path.stat()
    if large and (before.st_ctime_ns, before.st_ino) == (after.st_ctime_ns, after.st_ino):
        remembered.note(what, {path: facts.sha256})


def looked_at_once(root: Path, what: str, files: Mapping[str, FileFacts], look: Callable[[], None]) -> None:
    """Look at what is in files below `root`, unless they were looked at before and have not changed since.

    what: whatever the result depends on, besides the files. `look` raises where it finds a fault.
    """
    hashed = {root / name: facts.sha256 for name, facts in files.items()}
    remembered = Remembered(root)
    large = sum(facts.bytes for facts in files.values()) >= LARGE
    if large and remembered.knows(what, hashed):
        return
    look()
    if large:
        remembered.note(what, hashed)
