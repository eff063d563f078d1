"""Graphs on disk, their weights beside them where a file would grow too large."""

from pathlib import Path

import onnx_ir as ir

from . import EXTERNAL_BYTES as EXTERNAL_BYTES


def load_graph(path: Path) -> ir.Model:
    """Read a graph; weights beside it are mapped, not read."""
    return ir.load(path)


def save_graph(model: ir.Model, path: Path, *, external_bytes: int = EXTERNAL_BYTES) -> None:
    """Write a graph to `path`, and its weights to `path` + ".data" if they exceed `external_bytes`.

    `path` must not be the file that `model` was loaded from: its weights are read while they are written.
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    ir.save(model, path, external_data=f"{path.name}.data" if size > external_bytes else None)
