"""Datasets of a few users, made up."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tiny_models import tiny_catalog


def write_dataset(folder: Path, *, users: int = 40, valid: int = 10, **catalog: Any) -> Path:
    """Users who walk around the catalog: the next item is the last one's successor."""
    folder.mkdir(exist_ok=True)
    if not (folder / "index.json").exists():
        tiny_catalog(folder / "index.json", **catalog)
    count = len(json.loads((folder / "index.json").read_text()))
    rng = np.random.default_rng(0)

    def rows(number: int, labels: bool) -> str:
        lines = []
        for user in range(number):
            items = [str((rng.integers(count) + step) % count) for step in range(rng.integers(3, 8))]
            held = {"labels": items[-1:], "items": items[:-1]} if labels else {"items": items}
            lines.append(json.dumps({"user": f"u{user}", **held}) + "\n")
        return "".join(lines)

    (folder / "train.jsonl").write_text(rows(users, False))
    if valid:
        (folder / "valid.jsonl").write_text(rows(valid, True))
    return folder
