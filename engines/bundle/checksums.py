"""The hash of every file of a bundle: taken when it is written, checked when it is used."""

from collections.abc import Callable
from pathlib import Path

from ...catalog.bounds import leads_out
from ...catalog.errors import BundleError
from ...catalog.files import sha256
from .facts import FileFacts


def file_facts(root: Path) -> dict[str, FileFacts]:
    """Hash and size of every file below `root`, by its path in it."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): FileFacts(sha256=sha256(path), bytes=path.stat().st_size) for path in files
    }


def check_file(
    path: Path, facts: FileFacts, remedy: str, root: Path, told: Callable[[int], object] = lambda size: None
) -> None:
    """Raise `BundleError`, naming `remedy`, unless a file below `root` is as it was written; told: as of `sha256`."""
    if leads_out(path, root):
        raise BundleError(
            f"{path} is a link out of {root}, which is not followed. Put the file itself there, or write it again "
            f"with: {remedy}"
        )
    if not path.is_file():
        raise BundleError(f"{path} is missing. Write it again with: {remedy}")
    size = path.stat().st_size
    if size != facts.bytes:
        raise BundleError(f"{path} has {size} bytes, expected {facts.bytes}. Write it again with: {remedy}")
    got = sha256(path, told)
    if got != facts.sha256:
        raise BundleError(
            f"{path} is damaged: its SHA-256 is {got}, expected {facts.sha256}. Write it again with: {remedy}"
        )
