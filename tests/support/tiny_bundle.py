"""The tiny bundle that tests share (see conftest.py), and how to change a copy of it as if it had been written so."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from msgspec.structs import asdict

from specbeam.engines.bundle.checksums import file_facts
from specbeam.engines.bundle.facts import ENGINE_FACTS, EngineFacts
from specbeam.engines.bundle.items import Bundle, Manifest
from specbeam.engines.bundle.model import MANIFEST
from specbeam.engines.bundle.sealed import sealed

ENGINE = "onnxruntime-cpu-fp32"


@dataclass(frozen=True)
class Tiny:
    """A pair of tiny Llamas for a catalog of 40 items, some of which share an identifier.

    Their context of 32 positions holds <s> and nine items; the bundle's history length is 12.
    """

    target: Path
    draft: Path
    index: Path
    items: Path
    bundle: Path  # with an engine; never written to: tests that change one take the fixture `bundle`
    export_output: str
    build_output: str

    fits = 9  # items

    @property
    def item_ids(self) -> list[str]:
        return list(json.loads(self.index.read_text()))


def build_tiny(folder: Path) -> Path:
    """A random pair for 40 items, exported and built, for benchmarks that ask no more of it."""
    from specbeam.cli import main
    from tiny_models import tiny_catalog, tiny_checkpoint

    target = tiny_checkpoint(folder / "target", max_position_embeddings=32)
    draft = tiny_checkpoint(folder / "draft", max_position_embeddings=32, num_hidden_layers=1, seed=1)
    index, bundle = tiny_catalog(folder / "index.json"), folder / "bundle"
    options = ["--target", target, "--draft", draft, "--catalog", index, "--history-length", 12, "--output", bundle]
    for command in (["export", *options], ["build-engine", bundle, "--threads", 1]):
        main([str(word) for word in command], standalone_mode=False)
    return bundle


def edit_manifest(bundle: Path, **changes: Any) -> None:
    manifest = asdict(Bundle.open(bundle).manifest) | changes
    (bundle / MANIFEST).write_bytes(sealed(Manifest(**manifest)))


def edit_engine(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` edit engine.json's content in place."""
    path = bundle / "engines" / ENGINE / "engine.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_bytes(sealed(msgspec.convert(content, EngineFacts)))


def break_embedding(path: Path, rows: slice | list[int]) -> None:
    """Make NaN of some rows of a graph's embedding."""
    graph = onnx.load(path)
    weights = {weight.name: weight for weight in graph.graph.initializer}
    (weight,) = (
        weights[node.input[0]] for node in graph.graph.node if node.op_type == "Gather" and node.input[1] == "input_ids"
    )
    array = onnx.numpy_helper.to_array(weight).copy()
    array[rows] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(graph, path)


def break_rows(bundle: Path, rows: slice | list[int], role: str = "target") -> None:
    """Make NaN of some rows of the embedding in the engine's graph, and seal the engine anew."""
    folder = bundle / "engines" / ENGINE
    for graph in (folder / role).glob("*.onnx"):
        break_embedding(graph, rows)
    seal_engine(folder)


def seal_engine(folder: Path) -> None:
    """Let an engine's files be what it says they are."""
    content = json.loads((folder / ENGINE_FACTS).read_text())
    (folder / ENGINE_FACTS).unlink()
    content["files"] = msgspec.to_builtins(file_facts(folder))
    (folder / ENGINE_FACTS).write_bytes(sealed(msgspec.convert(content, EngineFacts)))
