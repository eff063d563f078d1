"""The runtime is embedded in serving stacks: importing it loads NumPy and the engine, and no training library."""

import pytest

from loaded import HEAVY, loaded_by


@pytest.mark.parametrize(
    "module",
    ["specbeam", "specbeam.catalog", "specbeam.catalog.histories.read", "specbeam.engines", "specbeam.engines.registry",
     "specbeam.engines.build", "specbeam.runtime", "specbeam.runtime.runs.inference", "specbeam.pools.texts.pool",
     "specbeam.text", "specbeam.runtime.runs.journal", "specbeam.cli"],
)  # fmt: skip
def test_import_is_light(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert "specbeam" in loaded
    assert not loaded & HEAVY


def test_the_check_sees_a_heavy_import() -> None:
    assert "tokenizers" in loaded_by("import tokenizers") & HEAVY


def test_the_command_line_starts_without_an_engine() -> None:
    assert "onnxruntime" not in loaded_by("import specbeam.cli")
