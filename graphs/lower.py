"""A float32 graph in half precision, typed node by node, for importers that take a graph's types as given."""

from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from ..catalog.errors import EngineError
from .write import Writer, describe, forget_shapes, infer, lazy_tensor

FLOAT = ir.DataType.FLOAT
HALVES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
LOWEST = np.finfo(np.float32).min
SMALLEST_SCALE = 2.0**-24  # float16's smallest positive number

# Computed in half precision. Norms that are one node are: their `stash_type` asks for float32 inside.
ROUNDED = {
    "Add", "Attention", "Clip", "Concat", "DequantizeLinear", "Div", "Equal", "Erf", "Expand", "Flatten", "Gather",
    "GatherND", "Gelu", "Gemm", "Identity", "LayerNormalization", "MatMul", "Max", "Min", "Mul", "Neg",
    "QuantizeLinear", "ReduceSum", "Relu", "Reshape", "RMSNormalization", "RotaryEmbedding", "Shape", "Sigmoid",
    "Slice", "Split", "Squeeze", "Sub", "Tanh", "TopK", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
# Computed in float32 where all they read is: the angles of the positions, what picks from the log-probabilities, and
# the shares of experts.
CARRIED = {
    "Add", "Concat", "Cos", "Div", "Equal", "Expand", "Flatten", "Gather", "MatMul", "Mul", "ReduceSum", "Reshape",
    "Sin", "Slice", "Squeeze", "Sub", "TopK", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
# What follows the mean of squares in a norm, up to its scale.
NORMS = (("Add", "Sqrt", "Div", "Mul"), ("Add", "Sqrt", "Reciprocal", "Mul", "Mul"))


def lower(model: ir.Model, precision: str) -> None:
    """Turn a float32 graph, Q/DQ nodes included, into one of `precision` ("fp16" or "bf16"), in place.

    Weights, caches, the mask and most arithmetic become half precision; log-softmax, norms that are written out
    and the angles of rotary embeddings stay in float32 between casts, and so does the output `logprobs`. Weights
    are rounded when they are read or saved. Raises `EngineError` for other precisions, for an operator that has no
    known place in either, and for weights beyond float16.
    """
    if precision not in HALVES:
        raise EngineError(f"A float32 graph is converted to {' or '.join(HALVES)}; got {precision!r}.")
    half = HALVES[precision]
    graph = model.graph
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer(model)
    exact = _exact(graph)
    _check(graph, exact)
    for weight in list(graph.initializers.values()):
        if weight.dtype == FLOAT and any(use.node not in exact for use in weight.uses()):
            _round_weight(weight, half)
    for value in graph.inputs:
        if value.dtype == FLOAT:
            value.dtype = half
    for node in graph:
        for value in node.outputs:
            if value.dtype == FLOAT and node not in exact:
                value.dtype = half
    _cast(graph, exact, half)
    for value in graph.outputs:
        if value.dtype != (FLOAT if value.name == "logprobs" else half):
            raise EngineError(
                f"The output {value.name} would be {value.dtype}: no log-softmax leads to `logprobs` alone."
            )
    forget_shapes(model)


def _exact(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that stay in float32."""
    found: set[ir.Node] = set()
    for node in graph:
        floats = [value for value in _floats(node) if value.const_value is None]
        angle = node.op_type == "Cast" and not floats and node.outputs[0].dtype == FLOAT  # of whole numbers
        carried = node.op_type in CARRIED and floats and all(value.producer() in found for value in floats)
        if angle or carried or node.op_type in ("LogSoftmax", "Softmax"):
            found.add(node)
    norms = [part for node in graph if node.op_type == "ReduceMean" for part in _norm(node)]
    return found.union(norms)


def _norm(mean: ir.Node) -> list[ir.Node]:
    """The nodes of the norm that a mean belongs to; none where it is of another kind."""
    square = mean.inputs[0].producer() if mean.inputs[0] is not None else None
    if square is None or not (square.op_type == "Pow" or (square.op_type == "Mul" and len(set(square.inputs)) == 1)):
        return []
    for kinds in NORMS:
        chain = [mean]
        for kind in kinds:
            users = [use.node for use in chain[-1].outputs[0].uses()]
            if [user.op_type for user in users] != [kind]:
                break
            chain += users
        if len(chain) > len(kinds) and square.inputs[0] in chain[-2].inputs:
            return [square, *chain]
    return []


def _floats(node: ir.Node) -> list[ir.Value]:
    """The float32 inputs of a node."""
    return [value for value in node.inputs if value is not None and value.dtype == FLOAT]


def _check(graph: ir.Graph, exact: set[ir.Node]) -> None:
    """Refuse what is not a float32 graph, and operators whose precision would be a guess."""
    others = {value.dtype for value in graph.inputs} - {FLOAT, ir.DataType.INT64}
    if others:
        raise EngineError(
            f"The graph has inputs of type {', '.join(str(other) for other in others)}; expected a float32 graph. "
            "Export the checkpoint with --precision fp32."
        )
    for node in graph:
        floating = _floats(node) or any(value.dtype == FLOAT for value in node.outputs)
        known = node.op_type in ROUNDED and node.domain == "" and node.attributes.get_int("output_dtype", 0) != FLOAT
        if floating and node not in exact and not (known or _small_power(node)):
            raise EngineError(
                f"{describe(node)} has no known place in a half-precision graph: whether it may be rounded would be a "
                "guess. Build an fp32 engine, or export the checkpoint again with this version."
            )


def _small_power(node: ir.Node) -> bool:
    """Whether a node is the square of an activation, or the cube in GELU's tanh form: where float16 has no room for
    that, its tanh is 1 or -1 anyway."""
    exponent = node.inputs[1] if node.op_type == "Pow" else None
    power = None if exponent is None else ir.convenience.get_const_tensor(exponent)
    return power is not None and power.size == 1 and float(power.numpy().item()) in (2, 3)


def _round_weight(weight: ir.Value, half: ir.DataType) -> None:
    """Store a weight in half precision; rounded when it is read, but refused now where it does not fit."""
    source, name = weight.const_value, weight.name
    assert source is not None
    scale = any(use.idx == 1 and use.node.op_type in ("QuantizeLinear", "DequantizeLinear") for use in weight.uses())
    values = source.numpy()
    largest = max(values.max(initial=0), -values.min(initial=0, where=values != LOWEST))
    if not largest <= half.max:  # also NaN
        raise EngineError(
            f"The weight {name} has values up to {largest:.3g}; {half.name.lower()} holds at most {half.max:.3g}. "
            "Build an engine in bf16 or fp32."
        )
    weight.const_value = lazy_tensor(lambda: _rounded(source.numpy(), half, scale), half, source.shape.numpy(), name)
    weight.dtype = half


def _rounded(array: NDArray[Any], half: ir.DataType, scale: bool) -> NDArray[Any]:
    """Rounded to the nearest; float32's lowest number, which hides slots, becomes the lowest of the half type."""
    if scale:  # it must be positive: what so small a scale describes could not be told from 0 anyway
        array = np.maximum(array, SMALLEST_SCALE)
    return np.where(array == LOWEST, half.min, array).astype(half.numpy())


def _cast(graph: ir.Graph, exact: set[ir.Node], half: ir.DataType) -> None:
    """Put one Cast behind every value that is read in the other precision."""
    casts: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        wanted = FLOAT if node in exact else half
        if node.op_type == "Shape":
            continue
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype not in (FLOAT, half) or value.dtype == wanted:
                continue
            if value not in casts:
                write = Writer(graph, node, f"{value.name}/{wanted.name.lower()}")
                casts[value] = write.op("Cast", [value], wanted, to=wanted)
            node.replace_input_with(index, casts[value])
