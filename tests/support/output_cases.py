"""Outputs that something happens to."""

import sys
from pathlib import Path

PRECIOUS = b"three years of work\n"


SPECBEAM = [sys.executable, "-m", "specbeam.cli"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
