"""Heads of the catalog's columns alone: the same up to a number a row, whatever the head is made of; or none at all."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calib_cases import tree_calls
from specbeam.calib.quantize import quantize
from specbeam.calib.ranges import compute_ranges
from specbeam.engines.bundle.facts import CONSTRAINED, Precision
from specbeam.engines.onnxruntime import backend
from specbeam.engines.prepare import prepare_graph
from specbeam.graphs.catalog_head import write_catalog_head
from tiny_graphs import CALLS, FIRST, ROWS, open_graph, tiny_graph
from tiny_models import KINDS

METHODS = ("static", "dynamic", "weight8", "weight4")
COLUMNS = ROWS - FIRST


def optimised(kind: str, form: str, folder: Path) -> Path:
    """A tiny model as ONNX Runtime's CPU provider runs it in a precision or quantized by a method."""
    source = tiny_graph(kind, form) if form in ("fp32", "fp16") else folder / "source" / "model.onnx"
    if form in METHODS:
        ranges = compute_ranges(tiny_graph(kind), tree_calls(4, shared=3), source_sha256="x")
        source.parent.mkdir()
        quantize(tiny_graph(kind), source, form, ranges=ranges if form == "static" else None, symmetric=False)  # type: ignore[arg-type]
    backend.optimise(source, folder / "engine" / "model.onnx", "cpu", 1)
    return folder / "engine" / "model.onnx"


def weights(path: Path) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnx.load(path, load_external_data=False).graph.initializer}


def head(path: Path) -> onnx.NodeProto:
    """What is multiplied in front of the log-softmax."""
    graph = onnx.load(path, load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    (softmax,) = (node for node in graph.node if node.op_type == "LogSoftmax")
    node = makers[softmax.input[0]]
    return makers[node.input[0]] if node.op_type == "Cast" else node


@pytest.mark.parametrize("form", ["fp32", "fp16", *METHODS])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_differ_by_a_number_each(kind: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if form != "weight8":  # whose packed blocks of 128 have NaN where a matrix has 32 rows, read from a file
        monkeypatch.setattr(backend, "SHARED_BYTES", 0)
    whole = optimised(kind, form, tmp_path)
    narrow = whole.with_name(CONSTRAINED)
    assert write_catalog_head(whole, narrow, rows=ROWS)
    one, other = open_graph(whole), open_graph(narrow)
    for call in CALLS:
        (full, *before), (few, *after) = (session.run(None, call.feed(session)) for session in (one, other))
        assert full.shape == few.shape
        assert np.ptp(full - few, axis=-1).max() < 1e-5
        assert np.abs(full - few).max() > 0.1
        np.testing.assert_allclose(np.exp(few.astype(np.float64)).sum(axis=-1), 1, atol=1e-5)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("form", ["fp32", "static"])
def test_weights_are_shared_and_packed_ones_too(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "SHARED_BYTES", 0)
    whole = optimised("llama", form, tmp_path)
    narrow = whole.with_name(CONSTRAINED)
    assert write_catalog_head(whole, narrow, rows=ROWS)
    assert sorted(file.name for file in whole.parent.iterdir()) == [CONSTRAINED, "model.onnx", "model.onnx.data"]
    before, after = weights(whole), weights(narrow)
    gone, new = before.keys() - after.keys(), after.keys() - before.keys()
    (pick,) = (node for node in onnx.load(whole, load_external_data=False).graph.node if "logprobs" in node.output)
    assert {*head(whole).input, *pick.input} >= gone  # the second: the columns' numbers
    assert new == {f"{name}.catalog" for name in set(head(whole).input) & gone}
    assert all(after[name] == before[name] for name in after.keys() & before.keys())
    packed = [tensor for tensor in after.values() if any(e.key.startswith("prepacked") for e in tensor.external_data)]
    assert len(packed) >= 5  # of the only layer


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_graphs_for_gpus(kind: str, precision: Precision, tmp_path: Path) -> None:
    """Those keep a cast between head and log-softmax; the weights are the same bits."""
    whole = prepare_graph(
        tiny_graph(kind), tmp_path / "model.onnx", exported="fp32", wanted=precision, mask_slots=3
    )  # fmt: skip
    narrow = whole.with_name(CONSTRAINED)
    assert write_catalog_head(whole, narrow, rows=ROWS)
    onnx.checker.check_model(str(narrow), full_check=True)
    before, after = (numpy_helper.to_array(weights(path)[head(path).input[1]]) for path in (whole, narrow))
    assert (before.dtype.itemsize, before.shape, after.shape) == (2, (32, ROWS), (32, COLUMNS))
    assert np.array_equal(before[:, FIRST:].view(np.uint16), after.view(np.uint16))


def test_a_head_with_a_bias(tmp_path: Path) -> None:
    path = optimised("llama", "fp32", tmp_path)
    model = onnx.load(path)
    (softmax,) = (node for node in model.graph.node if node.op_type == "LogSoftmax")
    place = list(model.graph.node).index(softmax)
    model.graph.node.insert(place, onnx.helper.make_node("Add", ["bias", softmax.input[0]], ["biased"]))
    softmax.input[0] = "biased"
    bias = np.random.default_rng(0).normal(size=ROWS).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(bias, "bias"))
    onnx.save(model, path)
    assert write_catalog_head(path, path.with_name(CONSTRAINED), rows=ROWS)
    one, other = open_graph(path), open_graph(path.with_name(CONSTRAINED))
    full, few = (session.run(["logprobs"], CALLS[-1].feed(session))[0] for session in (one, other))
    assert np.ptp(full - few, axis=-1).max() < 1e-5


def renamed(graph: onnx.GraphProto) -> None:
    (node,) = (node for node in graph.node if node.output[0] == graph.node[-1].input[0])
    node.op_type = "Softmax"


def read_twice(graph: onnx.GraphProto) -> None:
    (softmax,) = (node for node in graph.node if node.op_type == "LogSoftmax")
    graph.node.append(onnx.helper.make_node("Identity", [softmax.input[0]], ["logits"]))
    graph.output.append(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None))


def capped(graph: onnx.GraphProto) -> None:
    (softmax,) = (node for node in graph.node if node.op_type == "LogSoftmax")
    graph.node.append(onnx.helper.make_node("Tanh", [softmax.input[0]], ["capped"]))
    softmax.input[0] = "capped"


def all_rows(graph: onnx.GraphProto) -> None:
    (softmax,) = (node for node in graph.node if node.op_type == "LogSoftmax")
    (pick,) = (node for node in graph.node if node.output[0] == "logprobs")
    graph.node.remove(pick)
    softmax.output[0] = "logprobs"


@pytest.mark.parametrize("change", [renamed, read_twice, capped, all_rows])
def test_what_is_not_known_keeps_its_head(change: object, tmp_path: Path) -> None:
    path = optimised("llama", "fp32", tmp_path)
    model = onnx.load(path)
    change(model.graph)  # type: ignore[operator]
    onnx.save(model, path)
    assert not write_catalog_head(path, path.with_name(CONSTRAINED), rows=ROWS)
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_a_head_of_another_vocabulary_is_left_alone(tmp_path: Path) -> None:
    path = optimised("llama", "fp32", tmp_path)
    assert not write_catalog_head(path, path.with_name(CONSTRAINED), rows=ROWS + 1)
