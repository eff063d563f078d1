"""The attention mask computed in the graph from small index inputs, so that no mask crosses the bus."""

import onnx_ir as ir

from ..catalog.errors import EngineError
from .write import Writer

INT64, BOOL = ir.DataType.INT64, ir.DataType.BOOL


def index_mask(model: ir.Model, path: int) -> None:
    """Replace the input `attention_mask` by `visible_below` and `visible_slots`, in place; `slot_positions`, too.

    `visible_below` int64 [batch, sequence]: a token sees the slots below this number; `visible_slots` int64
    [batch, sequence, path]: and these (-1: none). `path` (at least 1) is a fixed size, because the graph
    compares every slot with one entry of the path after the other. Raises `EngineError` where the graph lacks
    the input or a cache.
    """
    if path < 1:
        raise EngineError(f"The mask needs room for at least 1 visible slot a token; got {path}.")
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    if missing := {"attention_mask", "input_ids", "past_key_values.0.key"} - set(inputs):
        raise EngineError(
            f"The graph has no input {', '.join(sorted(missing))}, only {', '.join(map(str, inputs))}. "
            "Start from a graph that `specbeam export` wrote."
        )
    below = ir.Value(name="visible_below", type=ir.TensorType(INT64), shape=ir.Shape(("batch", "sequence")))
    slots = ir.Value(name="visible_slots", type=ir.TensorType(INT64), shape=ir.Shape(("batch", "sequence", path)))
    dense = inputs["attention_mask"]
    users = list(dense.uses())
    mask = _mask(graph, (below, slots, path), inputs["input_ids"], inputs["past_key_values.0.key"], dense.dtype)
    for node, index in users:
        if not _reads_sequence(node):
            node.replace_input_with(index, mask)
        else:
            node.replace_input_with(index, inputs["input_ids"])
            node.attributes["start"], node.attributes["end"] = ir.AttrInt64("start", 1), ir.AttrInt64("end", 2)
    place = graph.inputs.index(dense)
    graph.inputs[place : place + 1] = [below, slots]
    if (asked := inputs.get("slot_positions")) is not None:
        made = _positions(graph, (slots, path), inputs["position_ids"], inputs["past_key_values.0.key"])
        asked.replace_all_uses_with(made)
        graph.inputs.remove(asked)


def _reads_sequence(node: ir.Node) -> bool:
    """Whether a node that reads the mask only asks for its third dimension, as exported graphs do."""
    bounds = [node.attributes.get(name) for name in ("start", "end")]
    return node.op_type == "Shape" and [bound and bound.as_int() for bound in bounds] == [2, 3]


def _mask(
    graph: ir.Graph, sees: tuple[ir.Value, ir.Value, int], ids: ir.Value, past: ir.Value, dtype: ir.DataType | None
) -> ir.Value:
    """Nodes at the beginning of the graph that compute the additive mask [batch, 1, sequence, past+sequence]."""
    assert dtype is not None
    below, slots, path = sees
    write = Writer(graph, graph[0], "visible")
    one = write.constant("visible.axis_1", [1], INT64)
    every = _every(write, ids, past)
    limit = write.op("Unsqueeze", [below, write.constant("visible.axes_1_3", [1, 3], INT64)], INT64)  # [B, 1, T, 1]
    shown = write.op("Less", [every, limit], BOOL)  # [B, 1, T, S + T]
    listed = write.op("Unsqueeze", [slots, one], INT64)  # [B, 1, T, L]
    for entry in write.ops("Split", [listed], INT64, path, axis=3, num_outputs=path) if path > 1 else [listed]:
        shown = write.op("Or", [shown, write.op("Equal", [every, entry], BOOL)], BOOL)
    visible = write.constant("visible.shown", 0, dtype)
    hidden = write.constant("visible.hidden", dtype.min, dtype)
    return write.op("Where", [shown, visible, hidden], dtype)


def _positions(graph: ir.Graph, sees: tuple[ir.Value, int], position_ids: ir.Value, past: ir.Value) -> ir.Value:
    """Nodes that compute `engines.attention_mask.slot_positions` [batch, past+sequence]."""
    slots, path = sees
    write = Writer(graph, graph[0], "positions")
    last, one = write.constant("positions.axis_2", [2], INT64), write.constant("visible.one", 1, INT64)
    nowhere = write.constant("positions.nowhere", -1, INT64)
    every = _every(write, position_ids, past)
    position = write.op("Unsqueeze", [position_ids, last], INT64)  # [B, T, 1]: of the entry at hand, the last first
    found: ir.Value | None = None
    for entry in reversed(write.ops("Split", [slots], INT64, path, axis=2, num_outputs=path) if path > 1 else [slots]):
        here = write.op("Equal", [every, entry], BOOL)  # [B, T, S + T]
        at = write.op("Where", [here, position, nowhere], INT64)
        found = at if found is None else write.op("Max", [found, at], INT64)
        named = write.op("Not", [write.op("Less", [entry, write.constant("visible.zero", 0, INT64)], BOOL)], BOOL)
        before = write.op("Sub", [position, one], INT64)
        position = write.op("Where", [named, before, position], INT64)
    assert found is not None
    tokens = write.constant("visible.axis_1", [1], INT64)
    most = write.op("ReduceMax", [found, tokens], INT64, keepdims=0)  # [B, S + T]
    unnamed = write.op("Less", [most, write.constant("visible.zero", 0, INT64)], BOOL)
    return write.op("Where", [unnamed, every, most], INT64)


def _every(write: Writer, ids: ir.Value, past: ir.Value) -> ir.Value:
    """[S + T]: the numbers of all slots."""
    cached = write.op("Shape", [past], INT64, start=2, end=3)
    new = write.op("Shape", [ids], INT64, start=1, end=2)
    first = write.constant("visible.axis_0", [0], INT64)
    total = write.op("Squeeze", [write.op("Add", [cached, new], INT64), first], INT64)
    bounds = [write.constant("visible.zero", 0, INT64), total, write.constant("visible.one", 1, INT64)]
    return write.op("Range", bounds, INT64)
