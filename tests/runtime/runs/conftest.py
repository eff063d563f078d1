"""What several test files of this folder share."""

from pathlib import Path

import pytest

from journal_cases import made, run


@pytest.fixture
def whole(tmp_path: Path) -> tuple[bytes, bytes]:
    """What a run in one go makes."""
    (tmp_path / "whole").mkdir()
    assert run(tmp_path / "whole/out")[0] == "end"
    return made(tmp_path / "whole/out")
