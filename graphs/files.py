"""Graphs on disk, their weights beside them where a file would grow too large."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ..catalog.errors import EngineError
from . import EXTERNAL_BYTES as EXTERNAL_BYTES
from .write import laid_out, lazy_tensor

Progress = Callable[[int, int], None]


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


def save_graph(
    model: ir.Model, path: Path, *, external_bytes: int = EXTERNAL_BYTES, progress: Progress = lambda done, total: None
) -> None:
    """Write a graph to `path`, and its weights to `path` + ".data" if they exceed `external_bytes`.

    `path` must not be the file that `model` was loaded from: its weights are read while they are written, one at a
    time. progress: is told the bytes of them that are written, and of all.
    """
    weights = [value for value in model.graph.initializers.values() if value.const_value is not None]
    size, written = sum(value.const_value.nbytes for value in weights if value.const_value), 0
    if size <= external_bytes:
        ir.save(model, path)
        return

    def told(tensor: ir.TensorProtocol, _: object) -> None:
        nonlocal written
        progress(written, size)
        written += tensor.nbytes

    for value in weights:
        tensor = value.const_value
        if isinstance(tensor, ir.Tensor) and not tensor.numpy().flags.c_contiguous:
            value.const_value = _in_order(tensor)
    ir.save(model, path, external_data=f"{path.name}.data", callback=told)


def _in_order(tensor: ir.Tensor[Any]) -> ir.LazyTensor:
    """A tensor that the exporter left transposed in place, turned when it is written."""
    shape = tensor.shape.numpy()
    return lazy_tensor(lambda: laid_out(tensor.numpy()), tensor.dtype, shape, tensor.name)
