"""What several test files of this folder share."""

from pathlib import Path

import pytest

from tiny_graphs import tiny_graph
from tiny_models import KINDS


@pytest.fixture(scope="module", params=sorted(KINDS))
def exported(request: pytest.FixtureRequest) -> Path:
    """The fp32 graph of one tiny model."""
    return tiny_graph(request.param)
