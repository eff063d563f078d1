"""TensorRT's rules for single operators, and how they are reported."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from import_cases import OLD, TABLED, for_gpus, found, graph, only, refusals
from parser_cases import EXPLICIT, INT8, cases
from specbeam.graphs import tensorrt, tensorrt_ops
from specbeam.graphs.tensorrt import check_versions, report


def test_open_axes_are_those_of_profiles() -> None:
    open_axis = only(graph("g (float[batch, path] x) => (float[batch, path] y) { y = Abs (x) }"))
    assert (open_axis.operator, open_axis.node) == ("input", "x")
    assert open_axis.message.startswith(
        "has the open axis path at 1, expected one of batch, sequence, past, rows, prompt: fix its size"
    )


def test_shapes_do_not_come_from_values() -> None:
    valued = graph("g (float[batch, 4] x, int64[2] s) => (float[a, b] y) { y = Reshape (x, s) }")
    assert only(valued).message.startswith("takes a shape from the values of an input; profiles give shapes alone")
    shaped = graph("g (float[batch, 4] x) => (float[a, b] y) { s = Shape (x) y = Reshape (x, s) }")
    assert refusals(shaped) == []
    counted = graph("g (float[batch, 4] x) => (int64[2, n] y) { y = NonZero (x) }")
    assert "size depends on the data" in only(counted).message


def test_axes_are_known_at_build_time() -> None:
    computed = "g (float[batch, 4] x, int64[1] a) => (float[batch] y) {{ y = {} (x, a) }}"
    for operator in ("ReduceMean", "ReduceSum", "Squeeze", "Unsqueeze"):
        assert (
            only(graph(computed.format(operator))).message
            == "computes axes, expected a constant: make it an initializer"
        )
    assert refusals(graph(computed.format("ReduceMean").replace(", int64[1] a", ""), {"a": np.array([1])})) == []
    folded = "g (float[batch, 4, 1] x) => (float[n] y) {{ b = {} y = {} (x, b) }}"
    for operator, before in (
        ("Unsqueeze", "Neg (a)"),
        ("ReduceMean", "Identity (a)"),
        ("ReduceMean", "Cast <to = 7> (a)"),
    ):
        assert refusals(graph(folded.format(before, operator), {"a": np.array([1])})) == []
    assert "computes axes" in only(graph(folded.format("Neg (a)", "ReduceMean"), {"a": np.array([1])})).message


def test_squeeze_without_axes() -> None:
    open_axes = graph("g (float[batch, 1] x) => (float[batch] y) { y = Squeeze (x) }")
    assert "imported since 11.5 alone: name them" in only(open_axes).message
    assert found(open_axes, (11, 5)) == []
    fixed = graph("g (float[4, 1] x) => (float[4] y) { y = Squeeze (x) }")
    assert found(fixed, OLD) == []


def test_top_k() -> None:
    text = "g (float[batch, 9999] x) => (float[batch, k] y, int64[batch, k] i) { y, i = TopK (x, k) }"
    assert refusals(graph(text, {"k": np.array([3839])})) == []
    assert only(graph(text, {"k": np.array([3840])})).message == "has K 3840, expected less than 3840"
    unsorted = graph(text.replace("TopK", "TopK <sorted = 0>"), {"k": np.array([5])})
    assert only(unsorted).message == "has sorted 0, expected 1: the attribute is not imported"


ATTENTION = (
    "g (float16[batch, 4, sequence, 8] q, float16[batch, 2, sequence, 8] k, float16[batch, 2, sequence, 8] v, "
    "{mask} m) => (float16[batch, 4, sequence, 8] y) {{ y = Attention{how} (q, k, v, m) }}"
)


MASK = "float16[batch, 1, sequence, sequence]"


def test_attention() -> None:
    assert found(graph(ATTENTION.format(mask=MASK, how=" <softcap = 0.0, qk_matmul_output_mode = 0>")), OLD) == []
    assert found(graph(ATTENTION.format(mask=MASK.replace("float16", "bool"), how="")), OLD) == []
    flat = only(graph(ATTENTION.format(mask="float16[sequence, sequence]", how="")))
    assert flat.message == "has attn_mask in 2D, expected 4D: reshape it"
    wide = only(graph(ATTENTION.format(mask=MASK.replace("float16", "float"), how="")))
    assert wide.message == "has a mask of FP32 with queries of FP16, expected the queries' type or BOOL: cast the mask"
    for attribute, got in (("softcap = 5.0", "softcap 5.0"), ("softmax_precision = 1", "softmax_precision 1")):
        finding = only(graph(ATTENTION.format(mask=MASK, how=f" <{attribute}>")))
        assert finding.message.startswith(f"has {got}, expected ")
    causal = only(graph(ATTENTION.format(mask=MASK, how=" <is_causal = 1>")))
    assert "has a mask and is_causal" in causal.message
    model = graph(ATTENTION.format(mask=MASK, how="").replace("(q, k, v, m)", "(q, k, v, m, k, v)"))
    assert [finding.message.split(",")[0] for finding in refusals(model)] == ["has past_key", "has past_value"]
    model = graph(ATTENTION.format(mask=MASK, how="").replace("y = Attention", "y, a, b = Attention"))
    assert only(model).message == "makes 3 outputs, expected the first alone: drop the others"


def test_restrictions_that_are_not_checked_are_unknown() -> None:
    pooled = graph("g (float[1, 1, 4, 4] x) => (float[1, 1, 2, 2] y) { y = AveragePool <kernel_shape = [3, 3]> (x) }")
    assert only(pooled).severity == "unknown"
    assert "2D or 3D, no dilations" in only(pooled).message


def test_explicit_quantization() -> None:
    for version in tensorrt_ops.VERSIONS:
        assert found(graph(EXPLICIT, INT8), version) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"zero": np.array(3, np.int8)}, "has a zero point that is not 0, expected 0: quantize symmetrically"),
        ({"zero": np.array(0, np.uint8)}, "has a zero point of UINT8, expected INT8: quantize symmetrically"),
        ({"x_scale": np.array(0, np.float32)}, "has a scale that is not positive"),
        ({"x_scale": np.full(8, 0.1, np.float32), "zero": np.zeros(8, np.int8)}, "has 8 scales on an activation"),
        ({"w_scale": np.full(3, 0.1, np.float32)}, "has scales [3] on axis 1 of [8,4], expected one scale for each"),
    ],
)
def test_quantization_parameters(changed: dict[str, np.ndarray[Any, Any]], message: str) -> None:
    found = refusals(graph(EXPLICIT, {**INT8, **changed}))
    assert any(finding.message.startswith(message) for finding in found), found


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("x, x_scale, zero", "x, x_scale", "has no zero point, which means UINT8 in ONNX and INT8 here"),
        ("x, x_scale, zero", "x, live, zero", "computes its scale, expected a constant"),
        ("MatMul (xf", "MatMulInteger (xq", "feeds MatMulInteger, expected DequantizeLinear alone"),
        ("xf = DequantizeLinear (xq", "xf = DequantizeLinear (xr", "reads Relu, expected QuantizeLinear or a constant"),
    ],
)
def test_quantization_patterns(old: str, new: str, message: str) -> None:
    text = EXPLICIT.replace(old, new)
    if "live" in new:
        text = text.replace("    xq", "    live = ReduceMax <keepdims = 0> (x)\n    xq")
    if "xr" in new:
        text = text.replace("    xf", "    xr = Relu (xq)\n    xf")
    found = refusals(graph(text, INT8))
    assert any(finding.message.startswith(message) for finding in found), found


def test_scales_are_of_output_channels() -> None:
    rows = {**INT8, "w_scale": np.full(8, 0.1, np.float32), "w_zero": np.zeros(8, np.int8)}
    finding = only(graph(EXPLICIT.replace("axis = 1", "axis = 0"), rows))
    assert finding.message == "has scales on axis 0 of MatMul's weight, expected its output channels, axis 1"


def test_weights_in_blocks() -> None:
    named = dict(cases())
    for size in (16, 32, 64, 128, 256):
        assert found(named[f"INT4 in blocks of {size}"], OLD) == []
    assert only(named["INT4 in broken blocks"]).message == (
        "has scales [3, 64] in blocks along axis 0 of [256,64], expected whole blocks, each of the same size: choose "
        "one that divides the axis"
    )
    assert "(INT4 alone is quantized in blocks)" in only(named["INT8 in blocks"]).message


def test_a_half_graph_needs_half_scales() -> None:
    model = graph(EXPLICIT.replace("float[", "float16["), INT8)
    assert {finding.operator for finding in refusals(model)} >= {"QuantizeLinear"}
    assert "has FP16 and FP32 in x, y_scale" in refusals(model)[0].message
    halves = {n: a.astype(np.float16) if a.dtype == np.float32 else a for n, a in INT8.items()}
    assert found(graph(EXPLICIT.replace("float[", "float16["), halves), OLD) == []


def test_report_groups_equal_findings(exported: Path) -> None:
    checks = [check_versions(ir.load(exported), "target"), check_versions(for_gpus(exported, "fp16"), "target, fp16")]
    text = report(checks)
    norms = checks[0].versions[0].count("refused")
    assert f"TensorRT 10.14  not importable: {norms} findings on RMSNormalization, RotaryEmbedding" in text
    assert "2 x RotaryEmbedding is imported since 10.15 alone" in text
    assert "the same as for 10.15" in text
    assert text.count("importable\n") == 5
    assert "published table of TensorRT 10.15" in text
    assert "last word is the parser's" in text


def test_report_names_the_first_nodes() -> None:
    nodes = " ".join(f"y{i} = Det (x)" for i in range(5))
    text = report([check_versions(graph(f"g (float[2, 2] x) => (float y0) {{ {nodes} }}"), "five", [TABLED])])
    assert "5 x Det is listed as not imported" in text
    assert " y0, y1, y2 and 2 more\n" in text


def test_report_counts_what_is_unknown() -> None:
    pooled = graph("g (float[1, 1, 4, 4] x) => (float[1, 1, 2, 2] y) { y = AveragePool <kernel_shape = [3, 3]> (x) }")
    assert "importable, as far as can be told: 1 unknown" in report([check_versions(pooled, "pooled", [TABLED])])


def test_checks_are_json() -> None:
    check = check_versions(graph("g (int64[4] x) => (int64[4] y) { y = Clip (x) }"), "clip")
    assert msgspec.json.decode(msgspec.json.encode(check), type=tensorrt.GraphCheck) == check
    assert [version.importable for version in check.versions] == [False] * 3


def test_the_table_is_about_operators_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    own = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}  # the parser's, older than ONNX's
    assert set(tensorrt_ops.OPERATORS) - own <= known
    assert known >= tensorrt_ops.REFUSED
    assert not tensorrt_ops.REFUSED & set(tensorrt_ops.OPERATORS)
    told = set(tensorrt_ops.OPERATORS) | tensorrt_ops.REFUSED | set(tensorrt_ops.UNTABLED)
    at_24 = {schema.name for schema in _at_opset(24)}
    assert at_24 <= told


def _at_opset(opset: int) -> Iterator[onnx.defs.OpSchema]:
    for schema in onnx.defs.get_all_schemas():
        if schema.domain == "" and onnx.defs.has(schema.name, opset, ""):
            yield schema
