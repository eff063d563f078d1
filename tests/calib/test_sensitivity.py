"""Which parts of a model suffer from quantization, and the nodes they are made of."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from calib_cases import tree_calls
from specbeam.calib.calls import Calls, record_calls
from specbeam.calib.quantize import quantize
from specbeam.calib.ranges import compute_ranges
from specbeam.calib.sensitivity import exclusions, mean_divergence, node_groups, sensitivity
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.registry import load_engine
from specbeam.graphs.files import load_graph
from tiny_bundle import ENGINE, Tiny
from tiny_graphs import tiny_graph
from tiny_models import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_groups_of_one_layer(kind: str) -> None:
    assert Counter(node_groups(load_graph(tiny_graph(kind))).values()) == {"layers.0": 7, "head": 1}


def test_groups_are_layers_and_the_head(tiny: Tiny) -> None:
    model = load_graph(tiny.bundle / "target" / "model.onnx")
    groups = node_groups(model)
    assert list(groups.values()) == ["layers.0"] * 7 + ["layers.1"] * 7 + ["head"]
    head = exclusions(model, ["head"])
    assert len(head) == 1
    assert exclusions(model, ["head", "layers.1"]) == [name for name, group in groups.items() if group != "layers.0"]
    assert exclusions(model, []) == []


@pytest.fixture(scope="module")
def recorded(tiny: Tiny) -> Calls:
    bundle = Bundle.open(tiny.bundle)
    target = load_engine(bundle, "target", ENGINE, threads=1)
    return record_calls(bundle, [[str(i), str(i + 1)] for i in range(8)], target, None, count=8, k=4)["target"]


def test_sensitivity_is_that_of_each_group(tiny: Tiny, recorded: Calls, tmp_path: Path) -> None:
    graph = tiny.bundle / "target" / "model.onnx"
    ranges = compute_ranges(graph, recorded, source_sha256="x")
    told: list[tuple[int, int]] = []
    found = sensitivity(
        graph, recorded, "static", ranges=ranges, searches=4, progress=lambda done, total: told.append((done, total))
    )
    assert list(found) == ["layers.0", "layers.1", "head"]
    assert all(divergence > 0 for divergence in found.values())
    assert told == [(done, 3) for done in range(4)]
    coarse = sensitivity(graph, recorded, "weight4", searches=4)
    assert all(coarse[group] > found[group] for group in found)


def test_divergence_of_distributions() -> None:
    p, q = np.log([[[0.5, 0.25, 0.25]]]), np.log([[[0.25, 0.5, 0.25]]])
    expected = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    assert mean_divergence([p], [q]) == pytest.approx(expected)
    assert mean_divergence([p], [p - 3]) == pytest.approx(0, abs=1e-12)  # other tokens' share is no matter
    assert mean_divergence([p, p], [q, p]) == pytest.approx(expected / 2)


def test_a_weak_spot_is_found(tmp_path: Path) -> None:
    graph, calls = tiny_graph("qwen2"), tree_calls(3)
    found = sensitivity(graph, calls, "weight4", searches=3)
    assert set(found) == {"layers.0", "head"}
    spared = tmp_path / "spared.onnx"
    quantize(graph, spared, "weight4", exclude=exclusions(load_graph(graph), [max(found, key=lambda g: found[g])]))
    assert spared.is_file()
