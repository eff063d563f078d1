"""What several test files of this folder share."""

from pathlib import Path

import pytest

from benchmarks.reliability.fuzz_artifacts import Artifacts


@pytest.fixture
def made(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "bundle")
