"""Outliers moved into weights: the float graph stays what it was, the quantized one gets nearer to it."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from calib_cases import logprobs, tree_calls
from specbeam.calib.quantize import quantize
from specbeam.calib.ranges import compute_ranges
from specbeam.calib.sensitivity import mean_divergence
from specbeam.calib.smooth import smooth
from specbeam.catalog.errors import OptionError
from specbeam.graphs.decompose import decompose
from specbeam.graphs.files import load_graph, save_graph
from tiny_graphs import tiny_graph
from tiny_models import KINDS

CALLS = tree_calls(4)


@pytest.mark.parametrize("parts", [False, True], ids=["norms", "norms in parts"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_float_graph_stays_the_same(kind: str, parts: bool, tmp_path: Path) -> None:
    graph = tiny_graph(kind)
    if parts:
        model = load_graph(graph)
        decompose(model)
        graph = tmp_path / "parts.onnx"
        save_graph(model, graph)
    measured = compute_ranges(graph, CALLS, source_sha256="x")
    model = load_graph(graph)
    smoothed = smooth(model, measured, alpha=0.5)
    save_graph(model, tmp_path / "smooth.onnx")
    for one, two in zip(logprobs(graph, CALLS), logprobs(tmp_path / "smooth.onnx", CALLS), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4, rtol=1e-5)
    changed = [name for name in measured.tensors if smoothed.tensors[name] != measured.tensors[name]]
    assert len(changed) == 5  # before k and v, before q, before gate and up, before down, before the head
    again = compute_ranges(tmp_path / "smooth.onnx", CALLS, source_sha256="x")
    assert list(again.tensors) == list(smoothed.tensors)
    for name in changed:
        np.testing.assert_allclose(smoothed.channels[name], again.channels[name], rtol=1e-3)
        assert smoothed.tensors[name] == pytest.approx(
            (-max(again.channels[name]), max(again.channels[name])), rel=1e-3
        )


def test_outliers_cost_less(tmp_path: Path) -> None:
    """Channels of a norm as much larger as those of large models are."""
    model = load_graph(tiny_graph("qwen2"))
    for name in ("input_layernorm", "post_attention_layernorm"):
        weight = next(value for key, value in model.graph.initializers.items() if f".{name}." in key)
        assert weight.const_value is not None
        scale = weight.const_value.numpy().copy()
        scale[3] *= 60
        weight.const_value = ir.tensor(scale, name=weight.name)
    graph = tmp_path / "model.onnx"
    save_graph(model, graph)
    measured, expected = compute_ranges(graph, CALLS, source_sha256="x"), logprobs(graph, CALLS)
    model = load_graph(graph)
    smoothed = smooth(model, measured)
    save_graph(model, tmp_path / "smooth.onnx")
    for source, its in ((graph, measured), (tmp_path / "smooth.onnx", smoothed)):
        quantize(source, tmp_path / f"int8-{source.name}", "static", ranges=its)
    plain, better = (logprobs(tmp_path / f"int8-{name}.onnx", CALLS) for name in ("model", "smooth"))
    assert mean_divergence(expected, better) < 0.5 * mean_divergence(expected, plain)


def test_strength_moves_the_difficulty() -> None:
    graph = tiny_graph("mistral")
    measured = compute_ranges(graph, CALLS, source_sha256="x")
    spread = []
    for alpha in (0.0, 0.5, 1.0):
        channels = next(iter(smooth(load_graph(graph), measured, alpha=alpha).channels.values()))
        spread.append(max(channels) / np.median(channels))
    assert spread[2] == pytest.approx(1, abs=1e-3)
    assert spread[2] < spread[1]
    for alpha in (-0.1, 1.5):
        with pytest.raises(OptionError, match="smoothing strength"):
            smooth(load_graph(graph), measured, alpha=alpha)


def test_a_weight_that_others_read_is_left_alone() -> None:
    model = load_graph(tiny_graph("llama"))
    measured = compute_ranges(tiny_graph("llama"), CALLS, source_sha256="x")
    norm = next(node for node in model.graph if node.op_type == "RMSNormalization")
    model.graph.outputs.append(norm.outputs[0])
    name = str(norm.outputs[0].name)
    assert smooth(model, measured).tensors[name] == measured.tensors[name]
