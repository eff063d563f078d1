"""What several test files share: one tiny pair, exported and built by the command line once per session."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from commands import user, write
from specbeam.catalog.user_cache import OFF, VARIABLE
from tiny_bundle import Tiny

if TYPE_CHECKING:
    from fake_cuda import FakeCuda
    from trt_cases import Graphs

# Before anything imports torch, here or in a subprocess: models this small are slower on several threads, and far
# slower where the processors are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Nothing is kept from one test, or from the user's own runs, for another.
os.environ[VARIABLE] = OFF

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    from click.testing import CliRunner

    from specbeam.cli import main
    from tiny_models import tiny_catalog, tiny_checkpoint

    folder = tmp_path_factory.mktemp("tiny")
    target = tiny_checkpoint(folder / "target", max_position_embeddings=32)
    draft = tiny_checkpoint(folder / "draft", max_position_embeddings=32, num_hidden_layers=1, seed=1)
    index, items, bundle = tiny_catalog(folder / "index.json"), folder / "items.json", folder / "bundle"
    items.write_text(json.dumps({str(i): {"title": f"Title {i}"} for i in range(0, 40, 2)}))
    exported = CliRunner().invoke(main, [
        "export", "--target", str(target), "--draft", str(draft), "--catalog", str(index), "--items", str(items),
        "--history-length", "12", "--output", str(bundle),
    ])  # fmt: skip
    assert exported.exit_code == 0, exported.output
    built = CliRunner().invoke(main, ["build-engine", str(bundle), "--threads", "1"])
    assert built.exit_code == 0, built.output
    return Tiny(target, draft, index, items, bundle, exported.output, built.output)


@pytest.fixture(scope="session")
def encoder_decoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two tiny encoder-decoders with an engine for the CPU; never written to."""
    from encoder_decoder_cases import build_encoder_decoders

    return build_encoder_decoders(tmp_path_factory.mktemp("encoder_decoders"))


@pytest.fixture
def bundle(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny bundle to change."""
    return shutil.copytree(tiny.bundle, tmp_path / "bundle")


@pytest.fixture
def histories(tmp_path: Path) -> Path:
    """Six good requests of several lengths."""
    entries = [user(f"u{i}", *map(str, range(i, i + 1 + i % 4))) for i in range(6)]
    return write(tmp_path / "histories.jsonl", *entries)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "recs.jsonl"


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> "Graphs":
    """A tiny model as TensorRT engines get it."""
    from trt_cases import export_graphs

    return export_graphs(tmp_path_factory)


@pytest.fixture(scope="session")
def kept_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture
def quick_exports(kept_graphs: Path) -> Iterator[None]:
    """No model is traced twice, and builds time little: for tests of what comes after an export."""
    from quick_builds import few_timings, traced_once

    with few_timings(), traced_once(kept_graphs):
        yield


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[FakeCuda]":
    """A stand-in for TensorRT and CUDA; see `gpu`."""
    from fake_cuda import fake_gpu

    with fake_gpu(tmp_path_factory.mktemp("cuda")) as gpu:
        yield gpu


@pytest.fixture
def gpu(stand_in: "FakeCuda") -> "Iterator[FakeCuda]":
    """The stand-in, as new."""
    import fake_tensorrt

    stand_in.reset()
    yield stand_in
    fake_tensorrt.Fault.reset()
