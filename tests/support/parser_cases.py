"""Graphs of a node or two that are held against the table of TensorRT's parser, and against the parser itself."""

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from import_cases import graph

Array = np.ndarray[Any, Any]
MASK = "float16[batch, 1, sequence, sequence]"
INT8 = {
    "x_scale": np.array(0.1, np.float32),
    "zero": np.array(0, np.int8),
    "w": np.zeros((8, 4), np.int8),
    "w_scale": np.full(4, 0.1, np.float32),
    "w_zero": np.zeros(4, np.int8),
}
EXPLICIT = """g (float[batch, 8] x) => (float[batch, 4] y) {
    xq = QuantizeLinear (x, x_scale, zero)
    xf = DequantizeLinear (xq, x_scale, zero)
    wf = DequantizeLinear <axis = 1> (w, w_scale, w_zero)
    y = MatMul (xf, wf)
}"""


def attention(mask: str = MASK, how: str = "", operands: str = "q, k, v, m", results: str = "y") -> ir.Model:
    return graph(
        "g (float16[batch, 4, sequence, 8] q, float16[batch, 2, sequence, 8] k, float16[batch, 2, sequence, 8] v, "
        f"{mask} m) => (float16[batch, 4, sequence, 8] y) {{ {results} = Attention{how} ({operands}) }}"
    )


def cases() -> Iterator[tuple[str, ir.Model]]:
    """Every graph, by a name."""
    yield from _operators()
    yield from _types()
    yield from _shapes()
    yield from _attentions()
    yield from _quantized()
    yield from _weights()


def _operators() -> Iterator[tuple[str, ir.Model]]:
    one = "g (float[4] x) => (float[4] y) {{ y = {} (x) }}"
    yield "of another domain", graph(one.format("com.microsoft.FastGelu"), also=', "com.microsoft" : 1')
    yield "listed as not imported", graph("g (float[4] x) => (float[n] y) { y = Unique (x) }")
    yield "unheard of", graph(one.format("Teleport"))
    yield "since 11.0", graph(one.format("Swish"), opset=24)
    inner = "then_branch = t () => (float z) { z = Det (x) }, else_branch = e () => (float w) { w = Det (x) }"
    yield "in a branch", graph(f"g (bool c, float[2, 2] x) => (float y) {{ y = If <{inner}> (c) }}")
    yield "sized by its data", graph("g (float[batch, 4] x) => (int64[2, n] y) { y = NonZero (x) }")
    for opset in (8, 9, 23, 24, 25, 26):
        yield f"opset {opset}", graph(one.format("Abs"), opset=opset)


def _types() -> Iterator[tuple[str, ir.Model]]:
    for operator in ("Clip", "Abs"):
        yield f"{operator} of INT64", graph(f"g (int64[4] x) => (int64[4] y) {{ y = {operator} (x) }}")
    yield "two types added", graph("g (float[4] x, float16[4] z) => (float[4] y) { y = Add (x, z) }")
    yield "two types joined", graph("g (float[4] x, float16[4] z) => (float[8] y) { y = Concat <axis = 0> (x, z) }")
    for name, exponent in (("FP32", "float"), ("INT64", "int64")):
        text = f"{{ e = Constant <value = {exponent} {{2}}> () y = Pow (x, e) }}"
        yield f"FP16 to the power of {name}", graph(f"g (float16[4] x) => (float16[4] y) {text}")
    yield "cast to UINT16", graph("g (float[4] x) => (uint16[4] y) { y = Cast <to = 4> (x) }")
    yield "text", graph("g (string[4] x) => (float[4] y) { y = Cast <to = 1> (x) }")


def _shapes() -> Iterator[tuple[str, ir.Model]]:
    yield "an axis of no profile", graph("g (float[batch, path] x) => (float[batch, path] y) { y = Abs (x) }")
    yield "a shape from values", graph("g (float[batch, 4] x, int64[2] s) => (float[a, b] y) { y = Reshape (x, s) }")
    text = "g (float[batch, 4] x) => (float[a, b] y) { s = Shape (x) y = Reshape (x, s) }"
    yield "a shape from a shape", graph(text)
    axes = {"a": np.array([1])}
    for operator in ("ReduceMean", "ReduceSum", "Squeeze", "Unsqueeze"):
        text = f"g (float[batch, 1, 4] x, int64[1] a) => (float[n] y) {{ y = {operator} (x, a) }}"
        yield f"{operator} over a given axis", graph(text)
        for before in ("Identity (a)", "Cast <to = 7> (a)", "Neg (a)", "Add (a, a)", "Concat <axis = 0> (a)"):
            text = f"g (float[1, 1, 4] x) => (float[n] y) {{ b = {before} y = {operator} (x, b) }}"
            given = {"a": np.array([0])} if operator == "Squeeze" else axes
            yield f"{operator} over {before.partition(' ')[0]} of an axis", graph(text, given)
    yield "Squeeze of open axes", graph("g (float[batch, 1] x) => (float[batch] y) { y = Squeeze (x) }")
    yield "Squeeze of fixed axes", graph("g (float[4, 1] x) => (float[4] y) { y = Squeeze (x) }")
    text = "g (float[batch, 9999] x) => (float[batch, k] y, int64[batch, k] i) {{ y, i = TopK{} (x, k) }}"
    for k in (3839, 3840):
        yield f"TopK of {k}", graph(text.format(""), {"k": np.array([k])})
    yield "TopK without an order", graph(text.format(" <sorted = 0>"), {"k": np.array([5])})


def _attentions() -> Iterator[tuple[str, ir.Model]]:
    yield "attention", attention(how=" <softcap = 0.0, qk_matmul_output_mode = 0>")
    yield "attention, mask of BOOL", attention(MASK.replace("float16", "bool"))
    yield "attention, mask in 2D", attention("float16[sequence, sequence]")
    yield "attention, mask of FP32", attention(MASK.replace("float16", "float"))
    yield "attention, softcap", attention(how=" <softcap = 5.0>")
    yield "attention, softmax_precision", attention(how=" <softmax_precision = 1>")
    yield "attention, mask and causal", attention(how=" <is_causal = 1>")
    yield "attention, past", attention(operands="q, k, v, m, k, v")
    yield "attention, three results", attention(results="y, a, b")


def _quantized() -> Iterator[tuple[str, ir.Model]]:
    yield "Q/DQ", graph(EXPLICIT, INT8)
    halves = {name: array.astype(np.float16) if array.dtype == np.float32 else array for name, array in INT8.items()}
    yield "Q/DQ in FP16", graph(EXPLICIT.replace("float[", "float16["), halves)
    yield "Q/DQ in FP16, scales of FP32", graph(EXPLICIT.replace("float[", "float16["), INT8)
    rows = {"w_scale": np.full(8, 0.1, np.float32), "w_zero": np.zeros(8, np.int8)}
    yield "Q/DQ, scales of rows", graph(EXPLICIT.replace("axis = 1", "axis = 0"), {**INT8, **rows})
    for name, changed in (
        ("zero point 3", {"zero": np.array(3, np.int8)}),
        ("zero point of UINT8", {"zero": np.array(0, np.uint8)}),
        ("scale 0", {"x_scale": np.array(0, np.float32)}),
        ("activation with 8 scales", {"x_scale": np.full(8, 0.1, np.float32), "zero": np.zeros(8, np.int8)}),
        ("too few scales", {"w_scale": np.full(3, 0.1, np.float32)}),
    ):
        yield f"Q/DQ, {name}", graph(EXPLICIT, {**INT8, **changed})
    yield "Q/DQ, Q without a zero point", graph(EXPLICIT.replace("x, x_scale, zero", "x, x_scale"), INT8)
    live = EXPLICIT.replace("x, x_scale, zero", "x, live, zero")
    yield "Q/DQ, scale computed", graph(live.replace("    xq", "    live = ReduceMax <keepdims = 0> (x)\n    xq"), INT8)
    yield "Q/DQ, Q into an integer product", graph(EXPLICIT.replace("MatMul (xf", "MatMulInteger (xq"), INT8)
    between = EXPLICIT.replace("DequantizeLinear (xq", "DequantizeLinear (xr")
    yield "Q/DQ, Relu between", graph(between.replace("    xf", "    xr = Relu (xq)\n    xf"), INT8)


def _weights() -> Iterator[tuple[str, ir.Model]]:
    """Weights alone: integers, scales, and DequantizeLinear's attributes."""
    int4, int8 = np.zeros((256, 64), ml_dtypes.int4), np.zeros((256, 64), np.int8)
    blocks = {size: np.full((256 // size, 64), 0.1, np.float16) for size in (16, 32, 64, 128, 256)}
    for size, scales in blocks.items():
        yield f"INT4 in blocks of {size}", _weighted(int4, scales, f"axis = 0, block_size = {size}")
    across = np.full((256, 4), 0.1, np.float16)
    yield "INT4 in blocks across columns", _weighted(int4, across, "axis = 1, block_size = 16")
    yield "INT4 in broken blocks", _weighted(int4, np.full((3, 64), 0.1, np.float16), "axis = 0, block_size = 96")
    yield (
        "INT4 in blocks, zero point 3",
        _weighted(int4, blocks[64], "axis = 0, block_size = 64", np.full((4, 64), 3, ml_dtypes.int4)),
    )
    yield "INT8 in blocks", _weighted(int8, blocks[64], "axis = 0, block_size = 64")
    for name, weight in (("INT4", int4), ("INT8", int8)):
        yield f"{name}, a scale a column", _weighted(weight, np.full(64, 0.1, np.float16), "axis = 1")
        yield f"{name}, a scale", _weighted(weight, np.array(0.1, np.float16), "axis = 1")
    unsigned = np.zeros((256, 64), ml_dtypes.uint4)
    yield "UINT4 in blocks", _weighted(unsigned, blocks[64], "axis = 0, block_size = 64")


def _weighted(weight: Array, scales: Array, layout: str, zero: Array | None = None) -> ir.Model:
    weights = {"w": weight, "s": scales} | ({} if zero is None else {"z": zero})
    return graph(
        "g (float16[batch, 256] x) => (float16[batch, 64] y) "
        f"{{ wf = DequantizeLinear <{layout}> ({', '.join(weights)}) y = MatMul (x, wf) }}",
        weights,
    )
