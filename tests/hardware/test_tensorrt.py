"""TensorRT on a GPU: `pytest -m tensorrt -s` builds and runs engines, and prints how long their calls take."""

from pathlib import Path

import numpy as np
import pytest

import trt_loop
from specbeam.catalog.errors import EngineError

pytestmark = pytest.mark.tensorrt


@pytest.fixture(scope="module", autouse=True)
def hardware() -> str:
    """TensorRT's version; skips, with the reason, where it or a GPU is missing."""
    pytest.importorskip("polygraphy")
    from specbeam.engines.cuda import Device
    from specbeam.engines.tensorrt.flavour import TENSORRT
    from specbeam.engines.tensorrt.library import import_tensorrt

    try:
        version = str(import_tensorrt(TENSORRT).__version__)
        device = Device()
    except EngineError as error:
        pytest.skip(str(error))
    print(f"\nTensorRT {version} on a GPU of compute capability {device.compute_capability()}")
    device.close()
    return version


@pytest.fixture(scope="module")
def bundle(hardware: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair with heads as wide as real models' and a reference engine."""
    from click.testing import CliRunner

    from specbeam.cli import main
    from tiny_models import tiny_catalog, tiny_checkpoint

    folder = tmp_path_factory.mktemp("hardware")
    sizes = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "max_position_embeddings": 256}
    target = tiny_checkpoint(folder / "target", codes=16, initializer_range=0.1, **sizes)
    draft = tiny_checkpoint(folder / "draft", codes=16, initializer_range=0.1, num_hidden_layers=1, seed=1, **sizes)
    index = tiny_catalog(folder / "index.json", items=400, codes=16)
    path = folder / "bundle"
    for arguments in (
        ["export", "--target", target, "--draft", draft, "--catalog", index, "--output", path],
        ["build-engine", path, "--threads", 1],
    ):
        done = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output
    return path


@pytest.fixture(scope="module")
def histories() -> list[list[str]]:
    rng = np.random.default_rng(1)
    return [[str(item) for item in rng.integers(0, 400, size)] for size in rng.integers(1, 15, 24)]


def test_fp16(bundle: Path, histories: list[list[str]]) -> None:
    name = trt_loop.build(bundle, "fp16")
    roles = trt_loop.roles(bundle, name)
    assert all(facts.max_difference < 5e-2 for facts in roles.values())
    overlap = trt_loop.loop(bundle, name, histories)
    print(trt_loop.latency_table(name, roles), f"\noverlap with float32: {overlap:.3f}")
    assert overlap > 0.9


def test_int8(bundle: Path, histories: list[list[str]]) -> None:
    pytest.importorskip("onnx_ir")
    name = trt_loop.build_int8(bundle)
    roles = trt_loop.roles(bundle, name)
    overlap = trt_loop.loop(bundle, name, histories)
    print(trt_loop.latency_table(name, roles), f"\noverlap with float32: {overlap:.3f}")
    assert overlap > 0.5  # random weights have no ranking to preserve: a broken scale is what this would show
