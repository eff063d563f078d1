"""What every transform does to a graph: infer types, write nodes, replace nodes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import ArrayLike, NDArray

from ..catalog.errors import EngineError

TILE = 128  # rows and columns that are turned at once


class Writer:
    """Writes nodes into a graph, in front of one of its nodes.

    Names begin with `prefix`, which must be this writer's alone; constants are shared by name between all writers.
    """

    def __init__(self, graph: ir.Graph, before: ir.Node, prefix: str) -> None:
        self.graph = graph
        self.before = before
        self.prefix = prefix
        self.count = 0

    def op(
        self, op_type: str, inputs: Sequence[ir.Value], dtype: ir.DataType, **attributes: int | float | Sequence[int]
    ) -> ir.Value:
        """Write a node with one output of type `dtype`, and return that."""
        return self.ops(op_type, inputs, dtype, 1, **attributes)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        dtype: ir.DataType,
        outputs: int,
        **attributes: int | float | Sequence[int],
    ) -> Sequence[ir.Value]:
        """Write a node with several outputs of type `dtype`, and return them."""
        name = f"{self.prefix}/{op_type}_{self.count}"
        self.count += 1
        names = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        values = [ir.Value(name=name, type=ir.TensorType(dtype)) for name in names]
        self.before.prepend(ir.node(op_type, inputs, attributes, outputs=values, name=name))
        return values

    def constant(self, name: str, array: ArrayLike, dtype: ir.DataType) -> ir.Value:
        """The initializer `name`, made on first use."""
        known = self.graph.initializers.get(name)
        return known or add_weight(self.graph, ir.tensor(np.asarray(array, dtype.numpy()), dtype, name=name))


def add_weight(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """Store a tensor in a graph, as the initializer of its name."""
    shape = ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=tensor.name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def lazy_tensor(
    compute: Callable[[], NDArray[Any]], dtype: ir.DataType, shape: Sequence[int], name: str | None
) -> ir.LazyTensor:
    """A tensor that is computed whenever it is read or saved: memory holds one at a time."""
    return ir.LazyTensor(lambda: ir.tensor(compute(), dtype, name=name), dtype, ir.Shape(shape), name=name)


def laid_out(array: NDArray[Any]) -> NDArray[Any]:
    """The same array in the order of its axes, row by row, as files hold it.

    A transposed matrix is copied in tiles that fit the processor's caches: many times as fast as NumPy's own way of
    writing it to a file, element by element.
    """
    if array.flags.c_contiguous or array.ndim != 2:
        return np.ascontiguousarray(array).reshape(array.shape)
    result = np.empty(array.shape, array.dtype)
    for row in range(0, array.shape[0], TILE):
        for column in range(0, array.shape[1], TILE):
            tile = np.s_[row : row + TILE, column : column + TILE]
            result[tile] = array[tile]
    return result


def replace_node(node: ir.Node, value: ir.Value) -> None:
    """Let `value` stand for the only output of `node`, under its name, and remove the node."""
    old, graph = node.outputs[0], node.graph
    assert graph is not None
    value.name, value.type, value.shape = old.name, old.type, old.shape
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def infer(model: ir.Model) -> None:
    """Give every value its type and its shape, as far as ONNX can tell.

    Raises `EngineError` where a type stays unknown.
    """
    passes.ShapeInferencePass()(model)
    for node in model.graph:
        for value in node.outputs:
            if value.dtype is None and value.name:
                raise EngineError(
                    f"The type of {value.name}, made by {describe(node)}, is unknown: ONNX does not know the operator, "
                    "or the graph is not valid. Export the checkpoint again."
                )


def forget_shapes(model: ir.Model) -> None:
    """Drop the inferred shapes inside a graph: symbols that the inference made up say nothing to a reader."""
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


def describe(node: ir.Node) -> str:
    """A node as messages name it."""
    domain = f"{node.domain}." if node.domain else ""
    return f"{domain}{node.op_type} ({node.name or 'unnamed'})"
