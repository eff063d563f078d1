"""Weights alone as DequantizeLinear: the layouts and the integers."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from calib_cases import logprobs, tree_calls
from specbeam.calib import quantize as quantize_module
from specbeam.calib.matmuls import weighted_matmuls
from specbeam.calib.quantize import Method, quantize
from specbeam.calib.sensitivity import mean_divergence, sensitivity
from specbeam.calib.trials import load_optimised
from specbeam.calib.weights import LARGEST, dequantize_weights
from specbeam.catalog.errors import EngineError, OptionError
from specbeam.engines.bundle.facts import Precision
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.prepare import prepare_graph
from specbeam.graphs.files import load_graph
from tiny_bundle import Tiny
from tiny_graphs import open_graph, tiny_graph
from tiny_models import KINDS

CALLS = tree_calls(4, shared=3)
PRODUCTS = 8  # of a layer's seven and the head
NEAR = {"weight8": 0.002, "weight4": 0.3}  # nats; these weights are random


def model_of(*shapes: tuple[int, int], seed: int = 0) -> ir.Model:
    """Products of one input each, with weights of these shapes."""
    rng = np.random.default_rng(seed)
    inputs = ", ".join(f"float[n, {depth}] x{i}" for i, (depth, _) in enumerate(shapes))
    outputs = ", ".join(f"float[n, {width}] y{i}" for i, (_, width) in enumerate(shapes))
    nodes = " ".join(f"y{i} = MatMul (x{i}, w{i})" for i in range(len(shapes)))
    weights = ", ".join(f"float[{depth}, {width}] w{i}" for i, (depth, width) in enumerate(shapes))
    model = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["": 23]> agraph ({inputs}, {weights}) => ({outputs}) {{ {nodes} }}'
    )
    given = {value.name: value for value in model.graph.inputs}
    for i, shape in enumerate(shapes):
        value = given[f"w{i}"]
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(rng.normal(size=shape).astype(np.float32), name=value.name)
        model.graph.register_initializer(value)
        model.graph.node(i).name = f"product{i}"
    return model


def weight_of(model: ir.Model, name: str) -> NDArray[np.float32]:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    array: NDArray[np.float32] = tensor.numpy()
    return array


def stored(model: ir.Model) -> list[tuple[NDArray[Any], NDArray[Any], dict[str, int]]]:
    """Integers, scales and layout of every dequantized weight, in the graph's order."""
    found = []
    for node in model.graph:
        if node.op_type == "DequantizeLinear":
            assert len(node.inputs) == 2  # no zero points
            arrays = [value.const_value.numpy() for value in node.inputs if value and value.const_value]
            found.append((*arrays, {name: attribute.as_int() for name, attribute in node.attributes.items()}))
    return found  # type: ignore[return-value]


def floats(integers: NDArray[Any], scales: NDArray[Any], layout: dict[str, int]) -> NDArray[np.float32]:
    """What they stand for, value by value."""
    result = np.empty(integers.shape, np.float32)
    for row, column in np.ndindex(*integers.shape):
        scale = scales[row // layout["block_size"], column] if layout["axis"] == 0 else scales[column]
        result[row, column] = np.float32(integers[row, column]) * scale
    return result


def test_8_bits_are_the_nearest_of_a_scale_a_column() -> None:
    model = model_of((48, 6), (10, 4))
    weights = [weight_of(model, f"w{i}") for i in (0, 1)]
    dequantize_weights(model, 8, ())
    assert set(model.graph.initializers) == {f"w{i}.{part}" for i in (0, 1) for part in ("integers", "scales")}
    for weight, (integers, scales, layout) in zip(weights, stored(model), strict=True):
        assert layout == {"axis": 1}
        assert integers.dtype == np.int8
        np.testing.assert_allclose(scales, np.abs(weight).max(axis=0) / 127)
        assert (np.abs(floats(integers, scales, layout) - weight) <= scales / 2 * (1 + 1e-5)).all()


def test_4_bits_are_in_two_whole_blocks_of_a_column_at_least() -> None:
    """What has none gets 8 bits: a compiler takes the depth over the number of scales for a block's size."""
    depths = {256: 64, 128: 64, 96: 32, 64: 32, 48: 16, 32: 16, 100: None, 16: None, 10: None}
    model = model_of(*((depth, 6) for depth in depths))
    weights = [weight_of(model, f"w{i}") for i in range(len(depths))]
    dequantize_weights(model, 4, ())
    for weight, (depth, block), (integers, scales, layout) in zip(weights, depths.items(), stored(model), strict=True):
        if block is None:
            assert (layout, integers.dtype, scales.shape) == ({"axis": 1}, np.int8, (6,))
            continue
        assert layout == {"axis": 0, "block_size": block}
        assert integers.dtype.name == "int4"
        assert scales.shape == (depth // block, 6)
        assert (scales > 0).all()
        blocks = weight.reshape(-1, block, 6)
        plain = np.abs(blocks).max(axis=1, keepdims=True) / LARGEST[4]
        worse = np.square(np.rint(blocks / plain) * plain - blocks).sum()
        assert np.square(floats(integers, scales, layout) - weight).sum() < worse


def test_a_column_of_zeros_and_a_shared_weight() -> None:
    model = model_of((32, 4), (32, 4))
    weight = model.graph.initializers["w0"]
    array = weight_of(model, "w0").copy()
    array[:, 2] = 0
    weight.const_value = ir.tensor(array, name="w0")
    model.graph.node(1).replace_input_with(1, weight)
    del model.graph.initializers["w1"]
    dequantize_weights(model, 8, ())
    ((integers, scales, _),) = stored(model)
    assert not integers[:, 2].any()
    assert np.isfinite(scales).all()
    assert [node.op_type for node in model.graph] == ["DequantizeLinear", "MatMul", "MatMul"]
    assert {node.inputs[1] for node in list(model.graph)[1:]} == {model.graph.node(0).outputs[0]}


@pytest.mark.parametrize("bits", [8, 4])
def test_an_odd_number_of_columns_is_made_even(bits: int, tmp_path: Path) -> None:
    """Kernels that read integers are for even ones."""
    model = model_of((32, 7), (32, 6))
    dequantize_weights(model, bits, ())
    odd, even = stored(model)
    assert (odd[0].shape, even[0].shape) == ((32, 8), (32, 6))
    assert not odd[0][:, 7].any()
    assert [node.op_type for node in model.graph] == [
        "DequantizeLinear",
        "MatMul",
        "Slice",
        "DequantizeLinear",
        "MatMul",
    ]
    assert [value.name for value in model.graph.outputs] == ["y0", "y1"]
    ir.save(model, tmp_path / "model.onnx")
    feed = {f"x{i}": np.random.default_rng(i).normal(size=(3, 32)).astype(np.float32) for i in (0, 1)}
    for one, (integers, scales, layout), x in zip(
        open_graph(tmp_path / "model.onnx").run(None, feed), (odd, even), feed.values(), strict=True
    ):
        np.testing.assert_allclose(one, (x @ floats(integers, scales, layout))[:, : one.shape[1]], atol=0.1, rtol=0.1)


@pytest.mark.parametrize("method", list(NEAR))
@pytest.mark.parametrize("kind", KINDS)
def test_every_graph_stays_near(kind: str, method: Method, tmp_path: Path) -> None:
    graph, output = tiny_graph(kind), tmp_path / "out" / "model.onnx"
    quantize(graph, output, method, weights="dequantize")
    assert [file.name for file in output.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(output)
    onnx.checker.check_model(model, full_check=True)
    found = Counter(node.op_type for node in model.graph.node)
    assert (found["DequantizeLinear"], found["MatMul"], found["MatMulNBits"]) == (PRODUCTS, PRODUCTS, 0)
    matrices = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".integers")]
    narrow = {tensor.data_type for tensor in matrices}
    assert len(matrices) == PRODUCTS
    assert (onnx.TensorProto.INT4 in narrow) == (method == "weight4")
    assert 0 < mean_divergence(logprobs(graph, CALLS), logprobs(output, CALLS)) < NEAR[method]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_only_scales_become_half(precision: Precision, tmp_path: Path) -> None:
    quantize(tiny_graph("qwen3"), tmp_path / "q.onnx", "weight4", weights="dequantize")
    options: dict[str, Any] = {"exported": "fp32", "wanted": precision, "mask_slots": 3, "decomposed": True}
    prepared = prepare_graph(tmp_path / "q.onnx", tmp_path / "p.onnx", **options)
    onnx.checker.check_model(onnx.load(prepared), full_check=True)
    before, after = stored(load_graph(tmp_path / "q.onnx")), stored(load_graph(prepared))
    half = {"fp16": "float16", "bf16": "bfloat16"}[precision]
    for (integers, scales, layout), (same, rounded, laid) in zip(before, after, strict=True):
        assert layout == laid
        assert same.dtype == integers.dtype
        assert (same == integers).all()
        assert rounded.dtype.name == half
        np.testing.assert_allclose(rounded.astype(np.float32), scales, rtol=2**-8)


def test_what_is_tried_is_the_arithmetic_of_the_compiled_graph(tiny: Tiny, tmp_path: Path) -> None:
    """ONNX Runtime's kernel for such graphs would round the activations to 8 bits, too."""
    opened = Bundle.open(tiny.bundle)
    quantize(opened.graph("target"), tmp_path / "q.onnx", "weight4", weights="dequantize")
    path, _ = load_optimised(tmp_path / "q.onnx", opened.facts("target"), tmp_path / "o", 1, "fp16", folded=True)
    model = onnx.load(path)
    found = Counter(node.op_type for node in model.graph.node)
    assert not found["DequantizeLinear"] + found["MatMulNBits"]
    prepared = prepare_graph(tmp_path / "q.onnx", tmp_path / "p.onnx", exported="fp32", wanted="fp16")
    arrays = [numpy_helper.to_array(t) for t in model.graph.initializer if len(t.dims) == 2]
    for integers, scales, layout in stored(load_graph(prepared)):
        expected = floats(integers, scales.astype(np.float32), layout).astype(np.float16)
        assert any(array.shape == expected.shape and np.array_equal(array, expected) for array in arrays)


def test_what_is_left_out_and_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = tiny_graph("llama")
    names = [str(node.name) for node in weighted_matmuls(load_graph(graph))]
    quantize(graph, tmp_path / "small.onnx", "weight8", exclude=names[:3], weights="dequantize")
    made = load_graph(tmp_path / "small.onnx")
    assert [str(node.name) for node in weighted_matmuls(made)] == names[:3]
    monkeypatch.setattr(quantize_module, "EXTERNAL_BYTES", 1000)
    quantize(graph, tmp_path / "large.onnx", "weight8", exclude=names[:3], weights="dequantize")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data", "small.onnx"]
    for one, two in zip(stored(made), stored(load_graph(tmp_path / "large.onnx")), strict=True):
        assert np.array_equal(one[0], two[0])
    with pytest.raises(OptionError, match="has no nodes nothing"):
        quantize(graph, tmp_path / "x.onnx", "weight8", exclude=["nothing"], weights="dequantize")
    with pytest.raises(EngineError, match="expected float32"):
        quantize(tiny_graph("qwen2", "fp16"), tmp_path / "x.onnx", "weight8", weights="dequantize")


def test_sensitivity_knows_this_form() -> None:
    graph, calls = tiny_graph("qwen2"), tree_calls(3)
    found = sensitivity(graph, calls, "weight4", weights="dequantize", searches=3)
    assert set(found) == {"layers.0", "head"}
    assert all(divergence > 0 for divergence in found.values())
