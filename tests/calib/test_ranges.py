"""Ranges of activations: what was seen, the same every time, for one graph only."""

from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

from calib_cases import tree_calls
from specbeam.calib.matmuls import activations
from specbeam.calib.observe import Observer
from specbeam.calib.ranges import Estimator, compute_ranges, load_ranges, save_ranges
from specbeam.catalog.errors import EngineError, OptionError
from specbeam.graphs.files import load_graph, save_graph
from tiny_graphs import tiny_graph
from tiny_models import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_minmax_covers_what_the_products_take(kind: str) -> None:
    graph, calls = tiny_graph(kind), tree_calls(shared=4)
    ranges = compute_ranges(graph, calls, source_sha256="x")
    names = activations(load_graph(graph))
    assert list(ranges.tensors) == list(ranges.channels) == names
    assert len(names) == 6  # what k and v share; q, of picked rows; o; what gate and up share; down; head
    seen = list(Observer(graph, names, threads=1).run(calls))
    assert len(seen) == calls.count == ranges.calls == 13
    for i, name in enumerate(names):
        values = np.concatenate([arrays[i].reshape(-1, arrays[i].shape[-1]) for arrays in seen])
        assert ranges.tensors[name] == (values.min(), values.max())
        np.testing.assert_array_equal(np.array(ranges.channels[name], np.float32), np.abs(values).max(axis=0))


@pytest.mark.parametrize("estimator", ["percentile", "entropy"])
def test_clipped_ranges_lie_inside(estimator: Estimator) -> None:
    graph, calls = tiny_graph("llama"), tree_calls()
    outer = compute_ranges(graph, calls, source_sha256="x")
    inner = compute_ranges(
        graph, calls, estimator, source_sha256="x", percentile=90 if estimator == "percentile" else None
    )
    assert inner.channels == outer.channels
    assert inner.tensors != outer.tensors
    for name, (low, high) in inner.tensors.items():
        assert outer.tensors[name][0] <= low < 0 < high <= outer.tensors[name][1]


def test_a_percentile_leaves_out_so_many_values() -> None:
    graph, calls = tiny_graph("llama"), tree_calls(20)
    ranges = compute_ranges(graph, calls, "percentile", source_sha256="x", percentile=95)
    name = next(iter(ranges.tensors))
    values = np.concatenate([array.ravel() for (array,) in Observer(graph, [name], threads=1).run(calls)])
    low, high = ranges.tensors[name]
    assert np.mean((values < low) | (values > high)) == pytest.approx(0.05, abs=0.01)
    assert compute_ranges(graph, calls, "percentile", source_sha256="x").percentile == 99.99


@pytest.mark.parametrize("estimator", ["minmax", "percentile"])
def test_the_same_calls_are_the_same_file(estimator: Estimator, tmp_path: Path) -> None:
    for number in range(2):
        ranges = compute_ranges(tiny_graph("qwen2"), tree_calls(), estimator, source_sha256="abc")
        save_ranges(ranges, tmp_path / f"{number}.json")
    one, two = (tmp_path / f"{number}.json" for number in range(2))
    assert one.read_bytes() == two.read_bytes()
    assert load_ranges(one, "abc") == ranges
    assert msgspec.json.decode(one.read_bytes())["estimator"] == estimator


def test_ranges_are_for_their_graph_only(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    save_ranges(compute_ranges(tiny_graph("llama"), tree_calls(2), source_sha256="abc"), path)
    with pytest.raises(EngineError, match="another graph"):
        load_ranges(path, "abd")
    path.write_text("{}")
    with pytest.raises(EngineError, match="holds no calibration ranges"):
        load_ranges(path, "abc")
    with pytest.raises(EngineError, match="holds no calibration ranges"):
        load_ranges(tmp_path / "gone.json", "abc")


def test_options_that_make_no_sense() -> None:
    graph, calls = tiny_graph("llama"), tree_calls(1)
    with pytest.raises(OptionError, match="estimator 'mean'"):
        compute_ranges(graph, calls, "mean", source_sha256="x")  # type: ignore[arg-type]
    for estimator, percentile in (("minmax", 99.0), ("percentile", 40.0), ("percentile", 101.0)):
        with pytest.raises(OptionError, match="percentile"):
            compute_ranges(graph, calls, estimator, source_sha256="x", percentile=percentile)


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    model = load_graph(tiny_graph("qwen2"))
    name = next(name for name in model.graph.initializers if name.endswith("input_layernorm.weight"))
    weight = model.graph.initializers[name]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(np.full(weight.const_value.shape.numpy(), np.inf, np.float32), name=name)
    save_graph(model, tmp_path / "model.onnx")
    with pytest.raises(EngineError, match="not finite"):
        compute_ranges(tmp_path / "model.onnx", tree_calls(1), source_sha256="x")


def test_progress_and_silence(capfd: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, int]] = []
    calls = tree_calls(3)
    compute_ranges(
        tiny_graph("llama"),
        calls,
        "entropy",
        source_sha256="x",
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 2 * calls.count) for done in range(2 * calls.count)]
    assert capfd.readouterr() == ("", "")
