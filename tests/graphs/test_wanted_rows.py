"""The last layer sees wanted rows alone, keys and values apart; what cannot be narrowed stays as it was."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from specbeam.engines.torch import DTYPES
from specbeam.export import onnx as exporter
from specbeam.export.checkpoint import cast_parameters
from specbeam.graphs.files import load_graph
from specbeam.graphs.wanted_rows import pick_rows_early
from tiny_graphs import CALLS, FIRST, ROWS, difference, make_call, open_graph, tiny_graph
from tiny_models import KINDS, make_model


def before(value: ir.Value | None) -> set[ir.Node]:
    """All nodes that a value is computed by."""
    node = None if value is None else value.producer()
    return set() if node is None else {node}.union(*map(before, node.inputs))


def products(nodes: set[ir.Node]) -> int:
    return sum(node.op_type == "MatMul" for node in nodes)


def graph_of(kind: str, precision: str, path: Path, layers: int = 2) -> Path:
    model = make_model(kind, rows=ROWS, tied=kind == "llama", num_hidden_layers=layers)
    cast_parameters(model, DTYPES[precision])
    exporter.export_graph(model, np.arange(FIRST, ROWS), path)
    return path


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_picked_before_the_queries(kind: str, precision: str) -> None:
    graph = load_graph(tiny_graph(kind, precision)).graph
    caches = set().union(*(before(output) for output in graph.outputs if output.name != "logprobs"))
    assert products(caches) == 2  # keys and values
    picked = {node for node in graph if node.op_type == "Gather" and "Flatten" in _makers(node)}
    assert len(picked) == 5  # the residual, what queries are made of, two angles, the mask
    for node in graph:
        if node.op_type == "MatMul" and node not in caches:
            assert picked & before(node.inputs[0]), node.name
    (attention,) = (node for node in graph if node.op_type == "Attention")
    assert picked & before(attention.inputs[3])


def _makers(node: ir.Node) -> list[str]:
    return [producer.op_type for value in node.inputs if value is not None and (producer := value.producer())]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_numbers_as_of_all_rows(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one layer, with padding and other rows in every request of a batch, some of them twice."""
    early = open_graph(tiny_graph(kind))
    monkeypatch.setattr(exporter, "pick_rows_early", lambda model: None)
    late = open_graph(graph_of(kind, "fp32", tmp_path / "late.onnx", layers=1))
    calls = [*CALLS, make_call(CALLS[-1].below, CALLS[-1].slots, CALLS[-1].past)]
    calls[-1].others["logit_rows"][:] = [[4, 0], [2, 2], [0, 1]]
    assert max(difference(late, early, call) for call in calls) <= 1e-5


def test_only_the_last_of_several_layers(tmp_path: Path) -> None:
    graph = load_graph(graph_of("qwen3", "fp32", tmp_path / "model.onnx")).graph
    caches = set().union(*(before(output) for output in graph.outputs if output.name != "logprobs"))
    assert products(caches) == 7 + 2
    assert sum(node.op_type == "Attention" for node in caches) == 1


def test_what_is_not_known_keeps_all_its_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator that may mix tokens: rows are picked behind it, everything before it is computed as ever."""

    def disturbed(model: ir.Model) -> None:
        node = next(node for node in model.graph if node.op_type == "Sigmoid")
        node.op_type = "HardSigmoid"
        pick_rows_early(model)

    monkeypatch.setattr(exporter, "pick_rows_early", disturbed)
    graph = load_graph(graph_of("llama", "fp32", tmp_path / "model.onnx", layers=1)).graph
    (gate,) = (node for node in graph if node.op_type == "HardSigmoid")
    assert not any(node.op_type == "Gather" and "Flatten" in _makers(node) for node in before(gate.outputs[0]))
    assert open_graph(tmp_path / "model.onnx").run(None, CALLS[0].feed(open_graph(tmp_path / "model.onnx")))
