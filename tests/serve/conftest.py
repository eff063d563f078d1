"""What tests of Triton, and of its clients, share: made once per session."""

from pathlib import Path

import pytest

from triton_cases import client_python


@pytest.fixture(scope="session")
def triton_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has `tritonclient`."""
    return client_python(tmp_path_factory.mktemp("clients") / "environment")
