"""Weights alone as integers, by the graph's own operators: DequantizeLinear in front of the products that read them.

For compilers, which lack ONNX Runtime's MatMulNBits. Of the two layouts here TensorRT for RTX 1.7 makes one kernel a
product, which reads the integers; of others (8 bits in blocks, 4 bits a column) and of odd numbers of columns it makes
two, with floats between them.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..graphs.write import Writer, add_weight, lazy_tensor, replace_node
from .matmuls import weighted_matmuls

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
TYPES = {8: ir.DataType.INT8, 4: ir.DataType.INT4}
LARGEST = {8: 127, 4: 7}  # of the integers; scales are positive, so the lowest is hardly needed
# Of 4-bit weights of a column that share a scale: 64 is the smallest that NVIDIA documents; smaller ones are compiled.
BLOCKS = (64, 32, 16)
AT_ONCE = 1 << 24  # values of a weight whose scales are looked for at once
CLIPPED = np.linspace(1, 0.7, 7)  # shares of a block's largest value that 4 bits may reach up to

Array = NDArray[np.float32]


def dequantize_weights(model: ir.Model, bits: int, exclude: Collection[str]) -> None:
    """Store the weights of a float32 graph's products as integers of `bits`, in place; activations stay as they are.

    8: a scale a column. 4: a scale for every block of a column; what has no two whole blocks gets 8 bits. No zero
    points. Where columns are odd in number, one of zeros is added, and left out of the product. exclude: names of
    products that stay as they are. The integers are computed when they are read or saved.
    """
    graph = model.graph
    made: dict[ir.Value, ir.Value] = {}
    for node in weighted_matmuls(model):
        weight = node.inputs[1]
        if weight is None or node.name in exclude:
            continue
        if weight not in made:
            made[weight] = _dequantized(graph, node, weight, bits)
        node.replace_input_with(1, made[weight])
        if weight.const_value is not None and weight.const_value.shape.numpy()[1] % 2:
            _without_last(graph, node, weight.const_value.shape.numpy()[1])
    for weight in made:
        if not weight.uses() and weight.name is not None:
            del graph.initializers[weight.name]


def _dequantized(graph: ir.Graph, node: ir.Node, weight: ir.Value, bits: int) -> ir.Value:
    """The weight [K, N] from integers, written in front of the node that reads it."""
    source = weight.const_value
    assert source is not None
    depth, width = source.shape.numpy()
    # Whole blocks: the compiler takes the depth over the number of scales for their size.
    block = next((size for size in BLOCKS if depth % size == 0 and depth > size), None) if bits == 4 else None
    if block is None:
        bits = 8
    values = _even(source.numpy())
    parts = np.array_split(values, max(values.size // AT_ONCE, 1), axis=1)
    scales = np.concatenate([_scales(part, block or depth, bits) for part in parts], axis=1)  # [blocks, N]
    integers = lazy_tensor(
        lambda: _integers(_even(source.numpy()), scales, bits), TYPES[bits], (depth, width + width % 2),
        f"{weight.name}.integers",
    )  # fmt: skip
    inputs = [
        add_weight(graph, integers),
        add_weight(graph, ir.tensor(scales if block else scales[0], name=f"{weight.name}.scales")),
    ]
    layout = {"axis": 0, "block_size": block} if block else {"axis": 1}
    write = Writer(graph, node, f"{weight.name}/dequantized")
    return write.op("DequantizeLinear", inputs, FLOAT, **layout)


def _without_last(graph: ir.Graph, node: ir.Node, width: int) -> None:
    """Leave the last column out of a product."""
    product = node.outputs[0]
    write = Writer(graph, node, f"{product.name}/even")
    bounds = [write.constant(f"even.{name}", [at], INT64) for name, at in (("start", 0), (f"end_{width}", width))]
    wide = write.op("MatMul", [value for value in node.inputs if value is not None], FLOAT)
    replace_node(node, write.op("Slice", [wide, *bounds, write.constant("even.axis", [-1], INT64)], FLOAT))


def _even(weight: Array) -> Array:
    """With a column of zeros more where their number is odd."""
    return np.pad(weight, ((0, 0), (0, weight.shape[1] % 2)))


def _scales(weight: Array, block: int, bits: int) -> Array:
    """Of a weight [K, N], one for every `block` of a column [K / block, N]; with 4 bits, that of the least error."""
    blocks = weight.reshape(-1, block, weight.shape[1])
    widest = np.abs(blocks).max(axis=1, keepdims=True) / LARGEST[bits]
    widest = np.where(widest > 0, widest, 1).astype(np.float32)
    if bits == 8:
        return np.ascontiguousarray(widest[:, 0])
    best, least = widest, np.full(widest.shape, np.inf, np.float32)
    for share in CLIPPED.astype(np.float32):
        scales = widest * share
        error = np.square(_rounded(blocks, scales, bits) * scales - blocks).sum(axis=1, keepdims=True)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return np.ascontiguousarray(best[:, 0])


def _integers(weight: Array, scales: Array, bits: int) -> NDArray[Any]:
    blocks = weight.reshape(len(scales), -1, weight.shape[1])
    return _rounded(blocks, scales[:, None], bits).reshape(weight.shape).astype(TYPES[bits].numpy())


def _rounded(blocks: Array, scales: Array, bits: int) -> Array:
    """The integers that a scale each describes, as floats."""
    clipped: Array = np.clip(np.rint(blocks / scales), -LARGEST[bits] - (bits == 4), LARGEST[bits])
    return clipped
