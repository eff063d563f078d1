"""Quantized graphs: what becomes integers, in which form, and how far the answers move."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calib_cases import logprobs, tree_calls
from specbeam.calib import quantize as quantize_module
from specbeam.calib.matmuls import weighted_matmuls
from specbeam.calib.quantize import Method, quantize
from specbeam.calib.ranges import Ranges, compute_ranges
from specbeam.calib.sensitivity import mean_divergence
from specbeam.catalog.errors import EngineError, OptionError
from specbeam.graphs.files import load_graph
from tiny_graphs import tiny_graph
from tiny_models import KINDS

CALLS = tree_calls(4, shared=3)
PRODUCTS = 8  # of a layer's seven and the head
LARGEST = {"static": 0.05, "dynamic": 0.05, "weight8": 0.002, "weight4": 0.3}  # nats; these weights are random


def ranges(kind: str) -> Ranges:
    return compute_ranges(tiny_graph(kind), CALLS, source_sha256="x")


def operators(graph: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(graph).graph.node)


@pytest.mark.parametrize("method", list(LARGEST))
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_stays_near(kind: str, method: Method, tmp_path: Path) -> None:
    graph, output = tiny_graph(kind), tmp_path / "out" / "model.onnx"
    for symmetric in (True, False) if method == "static" else (True,):
        measured = ranges(kind) if method == "static" else None
        quantize(graph, output, method, ranges=measured, symmetric=symmetric)
        divergence = mean_divergence(logprobs(graph, CALLS), logprobs(output, CALLS))
        assert 0 < divergence < LARGEST[method]
        inputs = [value.name for value in onnx.load(output).graph.input]
        assert inputs == [value.name for value in onnx.load(graph).graph.input]
    found = operators(output)
    operator = {"static": "MatMul", "dynamic": "MatMulInteger"}.get(method, "MatMulNBits")
    assert found[operator] == PRODUCTS
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_static_graphs_have_the_form_that_tensorrt_takes(kind: str, tmp_path: Path) -> None:
    quantize(tiny_graph(kind), tmp_path / "model.onnx", "static", ranges=ranges(kind))
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert len(products) == PRODUCTS
    pairs = set()
    for node in products:
        activation, weight = (makers[name] for name in node.input)
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        quantized = makers[activation.input[0]]
        assert quantized.op_type == "QuantizeLinear"
        assert list(quantized.input[1:]) == list(activation.input[1:])
        pairs.add(quantized.output[0])
        scale, zero = (weights[name] for name in activation.input[1:])
        assert scale.shape == ()
        assert zero.dtype == np.int8
        assert zero == 0
        stored, scales, zeros = (weights[name] for name in weight.input)
        assert stored.dtype == zeros.dtype == np.int8
        assert not zeros.any()
        assert next(attribute.i for attribute in weight.attribute if attribute.name == "axis") == 1
        assert scales.shape == zeros.shape == (stored.shape[1],)
        assert np.abs(stored).max() == 127
        makers_of_node = {makers[name].op_type for name in node.output}
        assert makers_of_node == {"MatMul"}
    assert len(pairs) == PRODUCTS
    assert all(name in makers for name in (value.name for value in model.graph.output))
    assert not {makers[value.name].op_type for value in model.graph.output} & {"QuantizeLinear", "DequantizeLinear"}


def test_activations_with_zero_points(tmp_path: Path) -> None:
    quantize(tiny_graph("qwen2"), tmp_path / "model.onnx", "static", ranges=ranges("qwen2"), symmetric=False)
    model = onnx.load(tmp_path / "model.onnx")
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    zeros = [weights[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {zero.dtype for zero in zeros} == {np.dtype(np.uint8)}
    assert any(zero not in (0, 128) for zero in zeros)


@pytest.mark.parametrize("method", list(LARGEST))
def test_excluded_nodes_stay(method: Method, tmp_path: Path) -> None:
    graph = tiny_graph("llama")
    names = [str(node.name) for node in weighted_matmuls(load_graph(graph))]
    measured = ranges("llama") if method == "static" else None
    quantize(graph, tmp_path / "model.onnx", method, ranges=measured, exclude=names[:3])
    model = onnx.load(tmp_path / "model.onnx")
    stored = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    kept = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in stored]
    assert kept == names[:3]
    quantize(graph, tmp_path / "same.onnx", method, ranges=measured, exclude=names)
    for one, two in zip(logprobs(graph, CALLS), logprobs(tmp_path / "same.onnx", CALLS), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_a_quantized_graph_is_smaller(tmp_path: Path) -> None:
    graph = tiny_graph("mistral")
    for method in ("static", "dynamic"):
        quantize(graph, tmp_path / "m.onnx", method, ranges=ranges("mistral") if method == "static" else None)
        matrices = [t for t in onnx.load(tmp_path / "m.onnx").graph.initializer if len(t.dims) == 2]
        floats = [t for t in matrices if t.data_type == onnx.TensorProto.FLOAT]
        assert len(floats) == 1  # the embedding
        assert len(matrices) == 1 + PRODUCTS


@pytest.mark.parametrize("method", list(LARGEST))
def test_weights_beside_a_large_graph(method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, measured = tiny_graph("qwen2"), ranges("qwen2") if method == "static" else None
    quantize(graph, tmp_path / "small.onnx", method, ranges=measured)
    monkeypatch.setattr(quantize_module, "EXTERNAL_BYTES", 1000)
    quantize(graph, tmp_path / "large.onnx", method, ranges=measured)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data", "small.onnx"]
    for one, two in zip(
        logprobs(tmp_path / "small.onnx", CALLS), logprobs(tmp_path / "large.onnx", CALLS), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_what_cannot_be_quantized(tmp_path: Path) -> None:
    graph, output = tiny_graph("llama"), tmp_path / "model.onnx"
    measured = ranges("llama")
    with pytest.raises(OptionError, match="method 'int3'"):
        quantize(graph, output, "int3")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="got no ranges for static"):
        quantize(graph, output, "static")
    with pytest.raises(OptionError, match="got ranges for dynamic"):
        quantize(graph, output, "dynamic", ranges=measured)
    with pytest.raises(OptionError, match="has no nodes nothing"):
        quantize(graph, output, "dynamic", exclude=["nothing"])
    with pytest.raises(EngineError, match=r"lack [1-6] of 6 activations"):
        quantize(tiny_graph("qwen2"), output, "static", ranges=replaced(measured))
    with pytest.raises(EngineError, match="expected float32"):
        quantize(tiny_graph("qwen2", "fp16"), output, "dynamic")
    assert not list(tmp_path.iterdir())


def replaced(measured: Ranges) -> Ranges:
    from msgspec.structs import replace

    return replace(measured, tensors={"another": (-1.0, 1.0)})


def test_silence_and_loggers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level, root.manager.disable
    for method in ("dynamic", "weight8"):
        quantize(tiny_graph("llama"), tmp_path / "model.onnx", method)
    quantize(tiny_graph("llama"), tmp_path / "model.onnx", "static", ranges=ranges("llama"))
    assert (list(root.handlers), root.level, root.manager.disable) == before
    assert capfd.readouterr() == ("", "")
