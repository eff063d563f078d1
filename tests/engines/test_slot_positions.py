"""The position of every slot, told by who sees what: of random trees, by NumPy, by PyTorch, and in a graph."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specbeam.engines.attention_mask import slot_positions
from specbeam.engines.base import ForwardInputs, Int64
from specbeam.engines.torch import slot_positions as torch_slot_positions
from specbeam.graphs.files import save_graph
from specbeam.graphs.index_mask import index_mask
from specbeam.runtime.search.visibility import tree_visibility
from tiny_graphs import open_graph

LEVELS = 3


def random_call(seed: int) -> tuple[ForwardInputs, int, Int64]:
    """A call on random trees behind prompts of unequal length, its cached slots, and where each slot lies.

    Positions of slots that no token sees are -1.
    """
    rng = np.random.default_rng(seed)
    batch, cached, new = int(rng.integers(1, 4)), int(rng.integers(0, 4)), int(rng.integers(1, 5))
    lengths = rng.integers(1, 5, batch)
    longest = int(lengths.max())
    past = longest + cached
    truth = np.full((batch, past + new), -1)
    truth[np.arange(past + new) < lengths[:, None]] = 0
    truth += np.where(truth == 0, np.arange(past + new), 0)
    paths = {(b, -1): np.full(LEVELS, -1) for b in range(batch)}
    row, query, named, positions = [], [], [], np.zeros((batch, new), np.int64)
    for b in range(batch):
        for slot in range(longest, past + new):
            parent, depth = max(
                ((key, int((path >= 0).sum())) for key, path in paths.items() if key[0] == b),
                key=lambda found: (found[1] < LEVELS, rng.random()),
            )
            if depth == LEVELS:
                continue
            path = paths[parent].copy()
            path[depth] = slot
            paths[b, slot] = path
            truth[b, slot] = lengths[b] + depth
            if slot >= past:
                row, query, named = [*row, b], [*query, slot - past], [*named, path]
                positions[b, slot - past] = lengths[b] + depth
    where = np.array(named, np.int64).reshape(-1, LEVELS)
    visible = tree_visibility(lengths, past, 0, new, np.array(row, np.int64), np.array(query, np.int64), where)
    ids = np.zeros((batch, new), np.int64)
    seen = np.zeros_like(truth, dtype=bool)
    for b, path in zip(row, named, strict=True):
        seen[b, path[path >= 0]] = True
    truth[~seen & (np.arange(past + new) >= lengths[:, None])] = -1
    return ForwardInputs(ids, positions, *visible, np.zeros((batch, 1), np.int64)), past, truth


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_every_slot_that_is_seen_has_its_position(seed: int) -> None:
    inputs, past, truth = random_call(seed)
    found = slot_positions(inputs, past)
    np.testing.assert_array_equal(found[truth >= 0], truth[truth >= 0])
    got = torch_slot_positions(torch.from_numpy(inputs.position_ids), torch.from_numpy(inputs.visible_slots), past)
    np.testing.assert_array_equal(got.numpy()[truth >= 0], truth[truth >= 0])


def test_a_graph_with_index_inputs_makes_them_itself(tmp_path: Path) -> None:
    float32, int64 = ir.DataType.FLOAT, ir.DataType.INT64
    shapes = {
        "input_ids": (int64, ("batch", "sequence")),
        "position_ids": (int64, ("batch", "sequence")),
        "attention_mask": (float32, ("batch", 1, "sequence", "past+sequence")),
        "past_key_values.0.key": (float32, ("batch", 1, "past", 2)),
        "slot_positions": (int64, ("batch", "past+sequence")),
    }
    values = {
        name: ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(axes))
        for name, (kind, axes) in shapes.items()
    }
    nodes = [ir.node("Identity", [value]) for value in values.values()]
    outputs = [node.outputs[0] for node in nodes]
    for output, (name, value) in zip(outputs, values.items(), strict=True):
        output.name, output.type, output.shape = f"{name}.seen", value.type, value.shape
    graph = ir.Graph(list(values.values()), outputs, nodes=nodes, opset_imports={"": 23}, name="positions")
    model = ir.Model(graph, ir_version=10)
    index_mask(model, LEVELS)
    save_graph(model, tmp_path / "model.onnx")
    session = open_graph(tmp_path / "model.onnx")
    for seed in range(40):
        inputs, past, truth = random_call(seed)
        feed = {
            "input_ids": inputs.input_ids,
            "position_ids": inputs.position_ids,
            "visible_below": inputs.visible_below,
            "visible_slots": inputs.visible_slots,
            "past_key_values.0.key": np.zeros((len(truth), 1, past, 2), np.float32),
        }
        (found,) = session.run(["slot_positions.seen"], feed)
        np.testing.assert_array_equal(found[truth >= 0], truth[truth >= 0])
