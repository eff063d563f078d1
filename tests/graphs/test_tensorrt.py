"""The check of graphs against TensorRT's parser: what is imported, what is refused and in which words."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from import_cases import NEW, OLD, PATH, TABLED, for_gpus, found, graph, only, refusals
from specbeam.catalog.errors import EngineError
from specbeam.graphs import tensorrt_ops
from specbeam.graphs.decompose import decompose
from specbeam.graphs.fold import fold_weights
from specbeam.graphs.index_mask import index_mask
from specbeam.graphs.lower import lower


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
