"""The public data, and lists as they are compared; it needs no torch."""

import os
from pathlib import Path

from specbeam.runtime import Recommendation


def shared_data() -> Path | None:
    """The folder with data/ and models/, or None: SPECBEAM_DATA, else ../shared beside the repository."""
    folder = Path(os.environ.get("SPECBEAM_DATA", Path(__file__).resolve().parents[2] / "shared"))
    return folder if (folder / "data").is_dir() and (folder / "models").is_dir() else None


def rows_of(folder: Path, part: str) -> dict[str, list[str]]:
    """One of AtSpeed's sequential files: user to items, as keys of index.json."""
    lines = (line.split() for line in (folder / f"sequential_{part}.txt").read_text().splitlines())
    return {user: [str(int(item) - 1) for item in items] for user, *items in lines}


def real_users(folder: Path) -> tuple[list[str], list[list[str]], list[set[str]]]:
    """AtSpeed's test users: their numbers, histories (train, then valid) and labels, as keys of index.json."""
    parts = {part: rows_of(folder, part) for part in ("train", "valid", "test")}
    users = [user for user, items in parts["test"].items() if items]
    histories = [parts["train"].get(user, []) + parts["valid"].get(user, []) for user in users]
    return users, histories, [set(parts["test"][user]) for user in users]


def as_ranked(result: Recommendation) -> list[tuple[tuple[str, ...], float]]:
    """A recommendation's distinct identifiers with their scores, in order."""
    return list({item.identifier: item.score for item in result.items}.items())
