"""The runtime is embedded in serving stacks: importing it loads NumPy and the engine, and no training library."""

import pytest

from loaded import HEAVY, loaded_by
from tiny_bundle import Tiny


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


def test_recommending_is_light(tiny: Tiny) -> None:
    """The engine that serves is loaded, and answers."""
    loaded = loaded_by(
        "from specbeam.runtime import EngineChoice, Recommender\n"
        f"open_ = Recommender.open({str(tiny.bundle)!r}, engine=EngineChoice(threads=1))\n"
        "for _ in range(4):\n"
        "    assert len(open_.recommend([['1']], 3)[0].items) == 3\n"
        "assert open_.planning.acceptance.requests(3)\n"
        "import sys\n"
        "assert 'numpy.ma' not in sys.modules"  # np.unique imports it, in the middle of somebody's request
    )
    assert "onnxruntime" in loaded
    assert not loaded & HEAVY


def test_the_check_sees_a_heavy_import() -> None:
    assert "tokenizers" in loaded_by("import tokenizers") & HEAVY


def test_the_command_line_starts_without_an_engine() -> None:
    assert "onnxruntime" not in loaded_by("import specbeam.cli")
