"""The table of TensorRT's parser beside the parser itself, that of TensorRT for RTX, which needs no GPU."""

from pathlib import Path

import onnx_ir as ir
import pytest

from import_cases import for_gpus
from parser_cases import cases
from specbeam.calib.matmuls import activations
from specbeam.calib.quantize import Method, quantize
from specbeam.calib.ranges import Ranges
from specbeam.engines.tensorrt.flavour import RTX
from specbeam.engines.tensorrt.parser import OwnParser, own_parsers
from specbeam.graphs.files import save_graph
from specbeam.graphs.tensorrt import check_versions

pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX: pip install tensorrt-rtx", exc_type=ImportError)
pytestmark = pytest.mark.compiler

NEWEST = (11, 5)  # of TensorRT, whose parser's notes the table follows

STRICTER = "what the parser takes here, the documentation of TensorRT 10.15 does not promise"
OURS = "no rule of the parser: an engine's calls have no such thing"
BUILDER = "the builder refuses it, for the parser looks at less"
# Graphs that the table refuses and the parser of TensorRT for RTX 1.7 imports, and why the table is as it is.
TAKEN = {
    "opset 8": "the parser does not look at the opset; 9 is the least that is documented",
    "opset 26": "the parser does not look at the opset; 25 is the newest that is documented",
    "Clip of INT64": STRICTER,
    "FP16 to the power of FP32": STRICTER,
    "an axis of no profile": OURS,
    "a shape from values": OURS,
    "TopK of 3840": "the builder's limit is 3840; the documentation says that K must stay below",
    "TopK without an order": STRICTER,
    "attention, mask in 2D": STRICTER,
    "attention, mask of FP32": BUILDER,
    "Q/DQ in FP16, scales of FP32": STRICTER,
    "Q/DQ, scales of rows": STRICTER,
    "Q/DQ, zero point of UINT8": STRICTER,
    "Q/DQ, activation with 8 scales": STRICTER,
    "Q/DQ, Q without a zero point": STRICTER,
    "Q/DQ, scale computed": STRICTER,
    "Q/DQ, Relu between": STRICTER,
    "INT8 in blocks": STRICTER,
}


@pytest.fixture(scope="module")
def parser() -> OwnParser:
    return OwnParser(RTX)


def held(model: ir.Model, parser: OwnParser, folder: Path) -> tuple[bool, bool]:
    """Whether the table imports a graph, and whether the parser does."""
    save_graph(model, folder / "model.onnx")
    (version,) = check_versions(model, "graph", [NEWEST]).versions
    return version.importable, parser.check(folder / "model.onnx").importable


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_graphs_that_are_built(exported: Path, precision: str, parser: OwnParser, tmp_path: Path) -> None:
    assert held(for_gpus(exported, precision), parser, tmp_path) == (True, True)


def test_graphs_with_calibrated_products(exported: Path, parser: OwnParser, tmp_path: Path) -> None:
    ranges = Ranges(
        source_sha256="", estimator="minmax", percentile=None, histories=0, calls=0, seed=0, channels={},
        tensors=dict.fromkeys(activations(ir.load(exported)), (-1.0, 1.0)),
    )  # fmt: skip
    quantize(exported, tmp_path / "quantized.onnx", "static", ranges=ranges, symmetric=True)
    model = for_gpus(tmp_path / "quantized.onnx", "fp16")
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph) >= 8
    assert held(model, parser, tmp_path) == (True, True)


@pytest.mark.parametrize("method", ["weight8", "weight4"])
def test_graphs_with_weights_alone(exported: Path, method: Method, parser: OwnParser, tmp_path: Path) -> None:
    quantize(exported, tmp_path / "quantized.onnx", method, weights="dequantize")
    model = for_gpus(tmp_path / "quantized.onnx", "bf16")
    assert sum(node.op_type == "DequantizeLinear" for node in model.graph) >= 8
    assert held(model, parser, tmp_path) == (True, True)


def test_exported_graphs_need_no_change_for_the_newest_parser(
    exported: Path, parser: OwnParser, tmp_path: Path
) -> None:
    assert held(ir.load(exported), parser, tmp_path) == (True, True)


@pytest.mark.parametrize(("name", "model"), [pytest.param(name, model, id=name) for name, model in cases()])
def test_single_nodes(name: str, model: ir.Model, parser: OwnParser, tmp_path: Path) -> None:
    table, own = held(model, parser, tmp_path)
    assert (table, own) == (False, True) if name in TAKEN else table == own


def test_what_is_known_to_differ_is_looked_at() -> None:
    assert set(TAKEN) <= {name for name, _ in cases()}


def test_why_a_graph_is_refused(parser: OwnParser, tmp_path: Path) -> None:
    save_graph(dict(cases())["attention, softcap"], tmp_path / "model.onnx")
    check = parser.check(tmp_path / "model.onnx")
    assert check.parser.startswith("TensorRT for RTX 1.")
    (finding,) = check.findings
    assert (finding.severity, finding.operator) == ("refused", "Attention")
    assert "softcap" in finding.message


def test_a_file_that_is_no_graph(parser: OwnParser, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    check = parser.check(tmp_path / "model.onnx")
    assert not check.importable
    assert check.findings


def test_both_flavours_say_the_same(tmp_path: Path) -> None:
    parsers, reasons = own_parsers()
    if len(parsers) < 2:
        pytest.skip(f"needs both flavours of TensorRT: {'; '.join(reasons)}")
    said: dict[str, list[bool]] = {}
    for name, model in cases():
        save_graph(model, tmp_path / "model.onnx")
        said[name] = [parser.check(tmp_path / "model.onnx").importable for parser in parsers]
    assert {name: verdicts for name, verdicts in said.items() if len(set(verdicts)) > 1} == {}
