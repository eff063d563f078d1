"""A tiny pair to align."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from commands import write as write_lines

CODES = 12  # enough prefixes of two tokens that 40 drafted ones are not nearly all


FEW: dict[str, Any] = {"steps": 6, "checks": 2, "batch": 8, "patience": 9}


def write_dataset(folder: Path, write: Callable[[Path], Path], *, users: int = 40, valid: int = 12) -> Path:
    """Users who walk around the catalog that `write` writes; the first of them are validated on, too.

    (What a random target ranks highest can be learned by heart, but not be guessed.)
    """
    folder.mkdir()
    count = len(json.loads(write(folder / "index.json").read_text()))
    rng = np.random.default_rng(0)
    walks = [rng.integers(count) + np.arange(rng.integers(3, 8)) for _ in range(users)]
    rows = [[str(item) for item in walk % count] for walk in walks]
    write_lines(folder / "train.jsonl", *({"user": f"u{i}", "items": row} for i, row in enumerate(rows)))
    if valid:
        held = enumerate(rows[:valid])
        write_lines(folder / "valid.jsonl", *({"user": f"u{i}", "items": r[:-1], "labels": r[-1:]} for i, r in held))
    return folder
