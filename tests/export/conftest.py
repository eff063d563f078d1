"""What several test files of this folder share."""

from pathlib import Path

import pytest

from tiny_models import tiny_catalog


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tiny_catalog(tmp_path / "index.json")
