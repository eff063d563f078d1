"""What several test files of this folder share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from upgrade_cases import KEPT


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an artifact, by its name."""
    return lambda name: shutil.copytree(KEPT / name, tmp_path / name)
