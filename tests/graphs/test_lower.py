"""Float32 graphs in half precision: what is rounded, what is not, and what is refused."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from specbeam.catalog.errors import EngineError
from specbeam.graphs.decompose import decompose
from specbeam.graphs.files import load_graph, save_graph
from specbeam.graphs.fold import fold_weights
from specbeam.graphs.index_mask import index_mask
from specbeam.graphs.lift import lift_graph
from specbeam.graphs.lower import HALVES, lower
from tiny_graphs import CALLS, PATH, checked, difference, open_graph, tiny_graph
from tiny_models import KINDS

FLOAT = ir.DataType.FLOAT
EXACT = {"Pow", "ReduceMean", "Sqrt", "Div", "Cos", "Sin", "LogSoftmax"}


def prepared(kind: str) -> ir.Model:
    """A graph as an engine for a GPU is built from it, in float32."""
    model = load_graph(tiny_graph(kind))
    fold_weights(model)
    decompose(model)
    index_mask(model, PATH)
    return model


def graph(text: str, **weights: object) -> ir.Model:
    """A model of ONNX's text form, `(inputs) => (outputs) { nodes }`, with these initializers."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 23]> agraph {text}')
    for node in model.graph:
        for value in node.inputs:
            if value is not None and value.name in weights and value.const_value is None:
                value.const_value = ir.tensor(np.asarray(weights[value.name]), name=value.name)
                value.dtype, value.shape = value.const_value.dtype, ir.Shape(value.const_value.shape.numpy())
                model.graph.initializers[value.name] = value
    return model


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_fp16_agrees_with_float32(tmp_path: Path, kind: str, whole: bool) -> None:
    model = prepared(kind) if whole else load_graph(tiny_graph(kind))
    lower(model, "fp16")
    result = open_graph(checked(model, tmp_path / "model.onnx"))
    assert max(difference(open_graph(tiny_graph(kind)), result, call) for call in CALLS) < 5e-2


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_the_float32_graph_with_rounded_weights(tmp_path: Path, kind: str) -> None:
    model, rounded = prepared(kind), prepared(kind)
    lower(model, "bf16")
    lift_graph(checked(model, tmp_path / "model.onnx"), tmp_path / "lifted.onnx")
    lifted = load_graph(tmp_path / "lifted.onnx")
    assert {value.dtype for value in lifted.graph.inputs} == {FLOAT, ir.DataType.INT64}
    for name, value in rounded.graph.initializers.items():
        value.const_value = lifted.graph.initializers[name].const_value
    save_graph(rounded, tmp_path / "rounded.onnx")
    one, two = open_graph(tmp_path / "rounded.onnx"), open_graph(tmp_path / "lifted.onnx")
    assert max(difference(one, two, call) for call in CALLS) <= 1e-6


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_types(kind: str, precision: str) -> None:
    model, half = prepared(kind), HALVES[precision]
    bytes_before = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    lower(model, precision)
    types = {value.name: value.dtype for value in (*model.graph.inputs, *model.graph.outputs)}
    assert types.pop("logprobs") == FLOAT
    assert set(types.values()) == {ir.DataType.INT64, half}
    assert all(dtype == half for name, dtype in types.items() if name and name.startswith(("past_", "present.")))
    matrices = [v for v in model.graph.initializers.values() if v.shape is not None and len(v.shape) == 2]
    assert {value.dtype for value in matrices} == {half}
    stored = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    assert stored < 0.55 * bytes_before
    for node in model.graph:
        floats = {value.dtype for value in (*node.inputs, *node.outputs) if value and value.dtype in (FLOAT, half)}
        if node.op_type != "Cast":
            assert floats <= ({FLOAT} if node.op_type in EXACT else {half}) or floats == {FLOAT}, node
        if node.op_type in ("MatMul", "Attention", "Sigmoid"):
            assert floats == {half}


@pytest.mark.parametrize("kind", KINDS)
def test_no_cast_undoes_another_or_repeats_one(kind: str) -> None:
    model = prepared(kind)
    lower(model, "fp16")
    casts = [node for node in model.graph if node.op_type == "Cast"]
    pairs = [(node.inputs[0], node.outputs[0].dtype) for node in casts]
    assert len(pairs) == len(set(pairs))
    for node in casts:
        source = node.inputs[0]
        assert source is not None
        assert source.dtype != node.outputs[0].dtype
        assert source.producer() is None or source.producer().op_type != "Cast"


NORM = """(float[n, 4] x) => (float[n, 4] present) {
    half = MatMul (x, w)
    square = Mul (half, half)
    mean = ReduceMean <keepdims = 1> (square, axes)
    padded = Add (mean, epsilon)
    root = Sqrt (padded)
    inverse = Reciprocal (root)
    normal = Mul (half, inverse)
    scaled = Mul (normal, scale)
    present = MatMul (scaled, w)
}"""


def norm() -> ir.Model:
    weights = {"w": np.eye(4, dtype=np.float32) * 300, "scale": np.full(4, 0.01, np.float32)}
    return graph(NORM, **weights, axes=np.array([-1]), epsilon=np.float32(1e-6))


def test_a_norm_in_its_other_form_stays_in_float32(tmp_path: Path) -> None:
    model = norm()
    save_graph(model, tmp_path / "source.onnx")
    lower(model, "fp16")
    kinds = {node.outputs[0].name: node.outputs[0].dtype for node in model.graph}
    assert {kinds[name] for name in ("square", "mean", "padded", "root", "inverse", "normal", "scaled")} == {FLOAT}
    assert {kinds[name] for name in ("half", "present")} == {ir.DataType.FLOAT16}
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)  # squared, beyond float16
    (wanted,) = open_graph(tmp_path / "source.onnx").run(None, {"x": x})
    (got,) = open_graph(checked(model, tmp_path / "model.onnx")).run(None, {"x": x.astype(np.float16)})
    assert np.allclose(wanted, got, rtol=5e-3)


QUANTIZED = """(float[n, 4] x) => (float[n, 2] present) {
    q = QuantizeLinear (x, step, zero)
    d = DequantizeLinear (q, step, zero)
    weight = DequantizeLinear <axis = 1> (w, steps, zeros)
    present = MatMul (d, weight)
}"""


@pytest.mark.parametrize("precision", HALVES)
def test_scales_become_half_and_stay_positive(tmp_path: Path, precision: str) -> None:
    model = graph(
        QUANTIZED,
        step=np.float32(0.5),
        zero=np.int8(0),
        w=np.arange(8, dtype=np.int8).reshape(4, 2),
        steps=np.array([0.25, 1e-12], np.float32),
        zeros=np.zeros(2, np.int8),
    )
    lower(model, precision)
    assert {value.dtype for node in model.graph for value in node.outputs} == {ir.DataType.INT8, HALVES[precision]}
    scales = model.graph.initializers["steps"].const_value
    assert scales is not None
    assert scales.dtype == HALVES[precision]
    assert (scales.numpy().astype(np.float32) > 0).all()
    checked(model, tmp_path / "model.onnx")
    if precision == "fp16":
        x = np.array([[1, 0.5, -0.5, 2]], np.float16)
        (got,) = open_graph(tmp_path / "model.onnx").run(None, {"x": x})
        assert np.allclose(got, [[0.25 * (0 * 1 + 2 * 0.5 - 4 * 0.5 + 6 * 2), 0]], atol=1e-3)


BLOCKED = """(float[n, 4] x) => (float[n, 2] present) {
    weight = DequantizeLinear <axis = 0, block_size = 2> (w, steps)
    present = MatMul (x, weight)
}"""


@pytest.mark.parametrize("precision", HALVES)
def test_4_bit_weights_in_blocks_keep_their_integers(tmp_path: Path, precision: str) -> None:
    integers = np.array([[-8, 7], [1, 2], [3, -4], [5, 0]], np.int8).astype(ir.DataType.INT4.numpy())
    steps = np.array([[0.25, 0.5], [1, 2]], np.float32)
    model = graph(BLOCKED, w=integers, steps=steps)
    lower(model, precision)
    checked(model, tmp_path / "model.onnx")
    read = load_graph(tmp_path / "model.onnx")
    stored = read.graph.initializers["w"].const_value
    assert stored is not None
    assert stored.dtype == ir.DataType.INT4
    assert (stored.numpy() == integers).all()
    assert {value.dtype for node in read.graph for value in node.outputs} == {HALVES[precision]}
    if precision == "fp16":
        x = np.array([[1, -2, 0.5, 4]], np.float16)
        (got,) = open_graph(tmp_path / "model.onnx").run(None, {"x": x})
        weight = integers.astype(np.float32) * steps.repeat(2, axis=0)
        assert np.allclose(got, x.astype(np.float32) @ weight, atol=1e-2)


def test_what_has_no_known_place_is_refused() -> None:
    exponential = graph("(float[n, 4] x) => (float[n, 4] present) { present = Exp (x) }")
    with pytest.raises(EngineError, match=r"Exp .* would be a guess"):
        lower(exponential, "fp16")
    mean = graph("(float[n, 4] x) => (float[n, 1] present) { present = ReduceMean (x, a) }", a=np.array([-1]))
    with pytest.raises(EngineError, match="ReduceMean"):
        lower(mean, "fp16")
    shared = norm()  # the mean of squares is read by another node as well: no norm as we know it
    mean_node = next(node for node in shared.graph if node.op_type == "ReduceMean")
    shared.graph.append(extra := ir.node("Neg", [mean_node.outputs[0]]))
    shared.graph.outputs.append(extra.outputs[0])
    with pytest.raises(EngineError, match="ReduceMean"):
        lower(shared, "fp16")
    log = graph("(float[n, 4] x) => (float[n, 4] present) { present = LogSoftmax (x) }")
    with pytest.raises(EngineError, match="output present"):
        lower(log, "fp16")


@pytest.mark.parametrize("precision", HALVES)
def test_the_cube_of_gelu_is_rounded_and_other_powers_are_refused(tmp_path: Path, precision: str) -> None:
    text = """(float[n, 4] x) => (float[n, 4] present) {
        cube = Pow (x, three) part = Mul (cube, a) inner = Add (x, part) wide = Mul (inner, b) bent = Tanh (wide)
        shifted = Add (bent, one) half = Mul (x, c) present = Mul (half, shifted) }"""
    weights = {"three": 3.0, "a": 0.044715, "b": 0.7978846, "one": 1.0, "c": 0.5}
    made = {name: np.float32(value) for name, value in weights.items()}
    model = graph(text, **made)
    lower(model, precision)
    assert "Cast" not in {node.op_type for node in model.graph}
    if precision == "fp16":
        x = np.array([[-200, -1.5, 0.5, 200]], np.float16)  # the cube of 200 is infinite
        (got,) = open_graph(checked(model, tmp_path / "model.onnx")).run(None, {"x": x})
        np.testing.assert_allclose(got, [[0, -0.1004, 0.3457, 200]], atol=1e-3)
    with pytest.raises(EngineError, match=r"Pow .* would be a guess"):
        lower(graph(text, **(made | {"three": np.float32(4)})), precision)


def test_half_graphs_and_numbers_beyond_half_are_refused() -> None:
    with pytest.raises(EngineError, match="expected a float32 graph"):
        lower(load_graph(tiny_graph("qwen3", "bf16")), "fp16")
    large = np.array([[7e4]], np.float32)
    text = "(float[n, 1] x) => (float[n, 1] present) { present = MatMul (x, w) }"
    with pytest.raises(EngineError, match=r"weight w has values up to 7e\+04.*bf16"):
        lower(graph(text, w=large), "fp16")
    lower(graph(text, w=large), "bf16")
