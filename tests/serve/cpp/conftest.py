"""The C library, built once for all tests of it."""

import pytest

from cpp_library import Library, built


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return built(tmp_path_factory.mktemp("library"))
