"""The check of graphs against TensorRT's parser: what is imported, what is refused and in which words."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from specbeam.catalog.errors import EngineError
from specbeam.graphs import tensorrt, tensorrt_ops
from specbeam.graphs.decompose import decompose
from specbeam.graphs.fold import fold_weights
from specbeam.graphs.index_mask import index_mask
from specbeam.graphs.lower import lower
from specbeam.graphs.tensorrt import Finding, check_versions, report
from tiny_graphs import tiny_graph
from tiny_models import KINDS

PATH = 3
OLD, TABLED, NEW = (10, 14), (10, 15), (11, 0)
QUANTIZED = {
    "x_scale": np.array(0.1, np.float32),
    "zero": np.array(0, np.int8),
    "w": np.zeros((8, 4), np.int8),
    "w_scale": np.full(4, 0.1, np.float32),
    "w_zero": np.zeros(4, np.int8),
}


@pytest.fixture(scope="module", params=sorted(KINDS))
def exported(request: pytest.FixtureRequest) -> Path:
    """The fp32 graph of one tiny model."""
    return tiny_graph(request.param)


def graph(
    text: str, weights: dict[str, np.ndarray[Any, Any]] | None = None, *, opset: int = 23, also: str = ""
) -> ir.Model:
    """A model of ONNX's text form, `g (inputs) => (outputs) { nodes }`, with `weights` as initializers."""
    header = f'<ir_version: 10, opset_import: ["" : {opset}{also}]>'
    return ir.from_onnx_text(
        f"{header} {text}", [ir.tensor(array, name=name) for name, array in (weights or {}).items()]
    )


def found(model: ir.Model, version: tuple[int, int]) -> list[Finding]:
    """What one version says."""
    return list(check_versions(model, "graph", [version]).versions[0].findings)


def refusals(model: ir.Model, version: tuple[int, int] = TABLED) -> list[Finding]:
    return [finding for finding in found(model, version) if finding.severity == "refused"]


def only(model: ir.Model, version: tuple[int, int] = TABLED) -> Finding:
    """The one finding about a model that is neither a note nor more than one."""
    (finding,) = [finding for finding in found(model, version) if finding.severity != "note"]
    return finding


def for_gpus(path: Path, precision: str) -> ir.Model:
    model = ir.load(path)
    fold_weights(model)
    decompose(model)
    index_mask(model, PATH)
    lower(model, precision)
    return model


# Graphs of ours


def test_exported_graphs_need_10_15_for_their_norms(exported: Path) -> None:
    model = ir.load(exported)
    assert {finding.operator for finding in refusals(model, OLD)} == {"RMSNormalization", "RotaryEmbedding"}
    assert "since 10.15 alone: decompose it" in refusals(model, OLD)[0].message
    for version in (TABLED, NEW, (11, 5)):
        assert [finding.severity for finding in found(model, version)] == ["note"]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_graphs_for_gpus_are_imported_by_all_versions(exported: Path, precision: str) -> None:
    model = for_gpus(exported, precision)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    for version in (*tensorrt_ops.VERSIONS, (11, 5)):
        assert found(model, version) == []
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def feeds() -> Iterable[dict[str, Any]]:
    rng = np.random.default_rng(0)
    yield {
        "input_ids": rng.integers(0, 28, (1, 5)),
        "position_ids": np.arange(4, 9)[None],
        "attention_mask": np.zeros((1, 1, 5, 9), np.float32),
        "logit_rows": np.array([[4]]),
        "past_key_values.0.key": rng.normal(size=(1, 2, 4, 8)).astype(np.float32),
        "past_key_values.0.value": rng.normal(size=(1, 2, 4, 8)).astype(np.float32),
    }


def test_explicitly_quantized_graphs_are_imported_by_all_versions(exported: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = iter(feeds())

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    model = ir.load(exported)
    fold_weights(model)
    decompose(model)
    ir.save(model, tmp_path / "folded.onnx")
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            str(tmp_path / "folded.onnx"),
            str(tmp_path / "int8.onnx"),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "MatMulConstBOnly": True},
        )
    finally:
        logging.disable(logging.NOTSET)
    model = ir.load(tmp_path / "int8.onnx")
    index_mask(model, PATH)
    lower(model, "fp16")
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph) >= 8
    for version in tensorrt_ops.VERSIONS:
        assert found(model, version) == []


def test_dynamic_quantization_is_refused(exported: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(exported, tmp_path / "dynamic.onnx", op_types_to_quantize=["MatMul"])
    finally:
        logging.disable(logging.NOTSET)
    found = refusals(ir.load(tmp_path / "dynamic.onnx"))
    named = {finding.operator: finding.message for finding in found}
    for operator in ("DynamicQuantizeLinear", "MatMulInteger"):
        assert named[operator].startswith("is listed as not imported: quantize statically, to QuantizeLinear")


# Operators, types and shapes


def test_operators_that_are_not_imported() -> None:
    foreign = graph("g (float[4] x) => (float[4] y) { y = com.microsoft.FastGelu (x) }", also=', "com.microsoft" : 1')
    assert only(foreign).message.startswith("is of the domain com.microsoft; only ONNX's own operators")
    listed = graph("g (float[4] x) => (float[n] y) { y = Unique (x) }")
    assert only(listed).message == "is listed as not imported: build it from operators that are"
    unheard = graph("g (float[4] x) => (float[4] y) { y = Teleport (x) }")
    assert only(unheard).message == "is not in the table of operators: build it from operators that are"
    assert only(unheard).operator == "Teleport"


def test_operators_without_a_published_table_are_unknown() -> None:
    swish = graph("g (float[4] x) => (float[4] y) { y = Swish (x) }", opset=24)
    assert only(swish).severity == "refused"
    assert only(swish, NEW).message == "is imported since 11.0, with types and restrictions that are not published"
    assert only(swish, NEW).severity == "unknown"


def test_element_types() -> None:
    assert only(graph("g (int64[4] x) => (int64[4] y) { y = Clip (x) }")).message == (
        "works on INT64, expected BF16, FP16 or FP32: cast before it"
    )
    assert refusals(graph("g (int64[4] x) => (int64[4] y) { y = Abs (x) }")) == []
    mixed = only(graph("g (float[4] x, float16[4] z) => (float[4] y) { y = Add (x, z) }"))
    assert mixed.message == (
        "has FP16 and FP32 in A, B, expected one type: networks are strongly typed, so cast one of them"
    )
    joined = only(graph("g (float[4] x, float16[4] z) => (float[8] y) { y = Concat <axis = 0> (x, z) }"))
    assert "has FP16 and FP32 in inputs" in joined.message
    power = "g (float16[4] x) => (float16[4] y) {{ e = Constant <value = {} {{2}}> () y = Pow (x, e) }}"
    assert "has FP16 and FP32 in X, Y" in only(graph(power.format("float"))).message
    assert refusals(graph(power.format("int64"))) == []
    assert refusals(graph("g (float[4] x) => (uint16[4] y) { y = Cast <to = 4> (x) }"))[1].message.startswith(
        "works on UINT16, expected BF16, BOOL"
    )


def test_types_of_inputs_and_outputs() -> None:
    findings = refusals(graph("g (string[4] x) => (float[4] y) { y = Cast <to = 1> (x) }"))
    assert [finding.operator for finding in findings] == ["input", "Cast"]
    assert findings[0].message == "is of STRING, expected one of BF16, BOOL, FP16, FP32, INT32, INT64, UINT8"


def test_nodes_of_branches_are_checked() -> None:
    branches = "then_branch = t () => (float z) { z = Det (x) }, else_branch = e () => (float w) { w = Det (x) }"
    model = graph(f"g (bool c, float[2, 2] x) => (float y) {{ y = If <{branches}> (c) }}")
    assert sorted(finding.operator for finding in refusals(model)) == ["Det", "Det"]


def test_a_type_that_nobody_knows_is_unknown() -> None:
    model = graph("g (float[4] x) => (float[4] y) { z = Teleport (x) y = Abs (z) }")
    assert [finding.severity for finding in found(model, TABLED)] == ["refused", "unknown"]
    assert "could not be inferred" in found(model, TABLED)[1].message


@pytest.mark.parametrize(
    ("opset", "version", "wanted"),
    [(8, TABLED, "9 to 24"), (24, OLD, "9 to 23"), (25, TABLED, "9 to 24"), (25, (11, 4), "9 to 24")],
)
def test_opsets(opset: int, version: tuple[int, int], wanted: str) -> None:
    model = graph("g (float[4] x) => (float[4] y) { y = Abs (x) }", opset=opset)
    assert only(model, version).message == f"is of opset {opset}, expected {wanted}: export it with opset 23"


def test_opset_25_since_11_5() -> None:
    assert found(graph("g (float[4] x) => (float[4] y) { y = Abs (x) }", opset=25), (11, 5)) == []


def test_versions_without_attention_are_not_known() -> None:
    with pytest.raises(EngineError, match=r"Got TensorRT 10\.13; expected 10\.14 or later"):
        found(graph("g (float[4] x) => (float[4] y) { y = Abs (x) }"), (10, 13))


def test_open_axes_are_those_of_profiles() -> None:
    open_axis = only(graph("g (float[batch, path] x) => (float[batch, path] y) { y = Abs (x) }"))
    assert (open_axis.operator, open_axis.node) == ("input", "x")
    assert open_axis.message.startswith(
        "has the open axis path at 1, expected one of batch, sequence, past, rows: fix its size"
    )


def test_shapes_do_not_come_from_values() -> None:
    valued = graph("g (float[batch, 4] x, int64[2] s) => (float[a, b] y) { y = Reshape (x, s) }")
    assert only(valued).message.startswith("takes a shape from the values of an input; profiles give shapes alone")
    shaped = graph("g (float[batch, 4] x) => (float[a, b] y) { s = Shape (x) y = Reshape (x, s) }")
    assert refusals(shaped) == []
    counted = graph("g (float[batch, 4] x) => (int64[2, n] y) { y = NonZero (x) }")
    assert "size depends on the data" in only(counted).message


# Restrictions of the table


def test_axes_are_known_at_build_time() -> None:
    computed = "g (float[batch, 4] x, int64[1] a) => (float[batch] y) {{ y = {} (x, a) }}"
    for operator in ("ReduceMean", "ReduceSum", "Squeeze", "Unsqueeze"):
        assert (
            only(graph(computed.format(operator))).message
            == "computes axes, expected a constant: make it an initializer"
        )
    assert refusals(graph(computed.format("ReduceMean").replace(", int64[1] a", ""), {"a": np.array([1])})) == []
    folded = "g (float[batch, 4] x) => (float[batch] y) { b = Neg (a) y = ReduceMean (x, b) }"
    assert refusals(graph(folded, {"a": np.array([1])})) == []


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


# Explicit quantization

EXPLICIT = """g (float[batch, 8] x) => (float[batch, 4] y) {
    xq = QuantizeLinear (x, x_scale, zero)
    xf = DequantizeLinear (xq, x_scale, zero)
    wf = DequantizeLinear <axis = 1> (w, w_scale, w_zero)
    y = MatMul (xf, wf)
}"""


def test_explicit_quantization() -> None:
    for version in tensorrt_ops.VERSIONS:
        assert found(graph(EXPLICIT, QUANTIZED), version) == []


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
    found = refusals(graph(EXPLICIT, {**QUANTIZED, **changed}))
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
    found = refusals(graph(text, QUANTIZED))
    assert any(finding.message.startswith(message) for finding in found), found


def test_scales_are_of_output_channels() -> None:
    rows = {**QUANTIZED, "w_scale": np.full(8, 0.1, np.float32), "w_zero": np.zeros(8, np.int8)}
    finding = only(graph(EXPLICIT.replace("axis = 1", "axis = 0"), rows))
    assert finding.message == "has scales on axis 0 of MatMul's weight, expected its output channels, axis 1"


def test_a_half_graph_needs_half_scales() -> None:
    model = graph(EXPLICIT.replace("float[", "float16["), QUANTIZED)
    assert {finding.operator for finding in refusals(model)} >= {"QuantizeLinear"}
    assert "has FP16 and FP32 in x, y_scale" in refusals(model)[0].message
    halves = {n: a.astype(np.float16) if a.dtype == np.float32 else a for n, a in QUANTIZED.items()}
    assert found(graph(EXPLICIT.replace("float[", "float16["), halves), OLD) == []


# The report


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


# The table


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
