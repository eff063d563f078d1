"""Graphs on disk, their weights beside them where a file would grow too large."""

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from ..catalog.errors import EngineError
from . import EXTERNAL_BYTES as EXTERNAL_BYTES


def load_graph(path: Path) -> ir.Model:
    """Read a graph; weights beside it are mapped, not read. Raises `EngineError` where it, or they, cannot be.

    Weights are looked for in the graph's own folder alone.
    """
    try:
        model = ir.load(path)
        for tensor in _tensors(model):
            if isinstance(tensor, ir.ExternalTensor):
                tensor.numpy()  # maps it, and says what is wrong with where it is to be
    except Exception as error:  # protobuf's, onnx-ir's and NumPy's own, of no common base
        reason = str(error.__cause__ or error).strip()
        raise EngineError(
            f"{path} cannot be read as a graph, its weights included: {reason}. Export again, or build the engine "
            "again, if it is an engine's."
        ) from error
    return model


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol | None]:
    for graph in (model.graph, *model.graph.subgraphs()):
        yield from (value.const_value for value in graph.initializers.values())
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.as_tensor()


def save_graph(model: ir.Model, path: Path, *, external_bytes: int = EXTERNAL_BYTES) -> None:
    """Write a graph to `path`, and its weights to `path` + ".data" if they exceed `external_bytes`.

    `path` must not be the file that `model` was loaded from: its weights are read while they are written.
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    ir.save(model, path, external_data=f"{path.name}.data" if size > external_bytes else None)
