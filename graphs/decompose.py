"""RMSNormalization and RotaryEmbedding, and Clip of whole numbers, written out, for importers that lack them."""

import numpy as np
import onnx_ir as ir

from ..catalog.errors import EngineError
from .write import Writer, describe, forget_shapes, infer, replace_node

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
ATTENTION_DEFAULTS = ("softcap", "qk_matmul_output_mode", "is_causal")  # 0 says: not used


def decompose(model: ir.Model) -> None:
    """Write norms, rotary embeddings and bounds of whole numbers out as primitives, in place.

    Attention loses attributes that it does not use. A norm's arithmetic is in float32 whatever the graph's type is, as
    `stash_type` 1 says. Raises `EngineError` for a form of these operators that exported graphs do not have.
    """
    infer(model)
    halves: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph):
        if node.domain != "":
            continue
        if node.op_type == "RMSNormalization":
            _norm(model.graph, node)
        elif node.op_type == "RotaryEmbedding":
            _rotary(model.graph, node, halves)
        elif node.op_type == "Clip":
            _clip(model.graph, node)
        elif node.op_type == "Attention":
            _attention(node)
    forget_shapes(model)


def _norm(graph: ir.Graph, node: ir.Node) -> None:
    """scale * x / sqrt(mean(x^2) + epsilon) over the last axes; the operator's definition in ONNX's own words."""
    x, scale = _values(node, 2)
    axis, stash, epsilon = node.attributes.get_int("axis", -1), node.attributes.get_int("stash_type", 1), _epsilon(node)
    if axis >= 0 or stash != FLOAT:
        raise _unknown(node, f"axis {axis} and stash_type {stash}", "a negative axis and stash_type 1")
    dtype = _dtype(x)
    write = Writer(graph, node, _name(node))
    exact = x if dtype == FLOAT else write.op("Cast", [x], FLOAT, to=FLOAT)
    square = write.op("Pow", [exact, write.constant("norm.exponent", 2, FLOAT)], FLOAT)
    axes = write.constant(f"norm.axes_{-axis}", list(range(axis, 0)), INT64)
    mean = write.op("ReduceMean", [square, axes], FLOAT, keepdims=1)
    padded = write.op("Add", [mean, write.constant(f"norm.epsilon_{epsilon!s}", epsilon, FLOAT)], FLOAT)
    normal = write.op("Div", [exact, write.op("Sqrt", [padded], FLOAT)], FLOAT)
    rounded = normal if dtype == FLOAT else write.op("Cast", [normal], dtype, to=dtype)
    replace_node(node, write.op("Mul", [rounded, scale], dtype))


def _epsilon(node: ir.Node) -> np.float32:
    return np.float32(node.attributes.get_float("epsilon", 1e-5))


def _rotary(graph: ir.Graph, node: ir.Node, halves: dict[ir.Value, ir.Value]) -> None:
    """The first and the second half of each head turned by the angles of their positions."""
    x, cos, sin = _values(node, 3)
    odd = {name: node.attributes.get_int(name, 0) for name in ("interleaved", "rotary_embedding_dim")}
    rank = None if x.shape is None else len(x.shape)
    if any(odd.values()) or rank != 4:
        raise _unknown(node, f"{odd} on a tensor of {rank} axes", "heads [batch, heads, sequence, width] turned whole")
    dtype = _dtype(x)
    write = Writer(graph, node, _name(node))
    for angle in (cos, sin):
        if angle not in halves:  # [B, T, D / 2] -> [B, 1, T, D / 2], once for all layers
            halves[angle] = write.op("Unsqueeze", [angle, write.constant("rotary.axis", [1], INT64)], dtype)
    turn, shift = halves[cos], halves[sin]
    left, right = write.ops("Split", [x], dtype, 2, axis=-1, num_outputs=2)
    one = write.op("Sub", [write.op("Mul", [left, turn], dtype), write.op("Mul", [right, shift], dtype)], dtype)
    two = write.op("Add", [write.op("Mul", [right, turn], dtype), write.op("Mul", [left, shift], dtype)], dtype)
    replace_node(node, write.op("Concat", [one, two], dtype, axis=-1))


def _clip(graph: ir.Graph, node: ir.Node) -> None:
    """Whole numbers between two bounds; floats are left as they are."""
    dtype = _dtype(node.outputs[0])
    if not dtype.is_integer():
        return
    x, least, most = _values(node, 3)
    write = Writer(graph, node, _name(node))
    replace_node(node, write.op("Min", [write.op("Max", [x, least], dtype), most], dtype))


def _attention(node: ir.Node) -> None:
    """Drop attributes that only say the default; TensorRT's importer refuses some of them whatever they say."""
    ranks = [None if value is None or value.shape is None else len(value.shape) for value in node.inputs]
    if ranks != [4, 4, 4, 4] or len(node.outputs) != 1:
        raise _unknown(node, f"inputs of {ranks} axes and {len(node.outputs)} outputs", "Q, K, V and a mask of 4 axes")
    for name in ATTENTION_DEFAULTS:
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.value:
            raise _unknown(node, f"{name} {attribute.value}", "0")
        node.attributes.pop(name, None)


def _values(node: ir.Node, count: int) -> list[ir.Value]:
    """The inputs, of which there must be `count`."""
    values = [value for value in node.inputs if value is not None]
    if len(values) != count:
        raise _unknown(node, f"{len(values)} inputs", str(count))
    return values


def _dtype(value: ir.Value) -> ir.DataType:
    assert value.dtype is not None
    return value.dtype


def _name(node: ir.Node) -> str:
    assert node.outputs[0].name is not None
    return node.outputs[0].name


def _unknown(node: ir.Node, got: str, expected: str) -> EngineError:
    return EngineError(
        f"{describe(node)} has {got}; expected {expected}, as `specbeam export` writes it. Export the checkpoint again."
    )
