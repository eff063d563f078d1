"""What the last layer computes for tokens whose logits nobody reads, left out: rows are picked before it, not behind.

Keys and values of all tokens are outputs, and stay. All else that leads to `logprobs` alone (the last layer's queries,
attention and MLP, and the norm behind them) works token by token, so that picking rows first gives the same.
"""

from collections.abc import Iterable

import onnx_ir as ir
import onnx_ir.passes.common as passes

from .write import Writer, infer

INT64 = ir.DataType.INT64
# Operands aligned from the right.
BROADCAST = {
    "Add", "Cast", "Clip", "Cos", "Div", "Gelu", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Sigmoid", "Sin", "Sqrt",
    "Sub", "Tanh",
}  # fmt: skip
ATTENDING = {"Attention": {0: 2, 3: 2}, "RotaryEmbedding": {0: 2, 1: 1, 2: 1}}  # operand: its axis of tokens
WITHIN = {
    "MatMul",
    "RMSNormalization",
    "ReduceMean",
    "Reshape",
    "Slice",
}  # what they change lies behind the axis of tokens


def pick_rows_early(model: ir.Model) -> None:
    """Move the choice of `logit_rows` in front of all that no other output needs, in place.

    The graph is one of the contract as it was traced: the shapes inside it say which axes are open. Where an operator
    is not known to work token by token, all of its tokens stay, and rows are picked behind it.
    """
    infer(model)
    graph = model.graph
    pick = _pick(graph)
    flat = None if pick is None else _producer(pick.inputs[0])
    if pick is None or flat is None or flat.inputs[0] is None:
        return
    others = [output for output in graph.outputs if output.name != "logprobs"]
    hidden = _Rows(graph, pick, _ancestors(others)).of(flat.inputs[0], 1)
    if hidden is not None:
        pick.outputs[0].replace_all_uses_with(hidden)
        passes.RemoveUnusedNodesPass()(model)


def _pick(graph: ir.Graph) -> ir.Node | None:
    """The Gather of rows of hidden states [batch * sequence, hidden] in front of the head."""
    for node in graph:
        flat = _producer(node.inputs[0]) if node.op_type == "Gather" else None
        if flat is not None and flat.op_type == "Reshape":
            return node
    return None


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _ancestors(values: Iterable[ir.Value]) -> set[ir.Value]:
    """All values that any of these is computed from, and themselves."""
    found: set[ir.Value] = set()
    remaining = list(values)
    while remaining:
        value = remaining.pop()
        if value not in found:
            found.add(value)
            producer = value.producer()
            remaining += [] if producer is None else [before for before in producer.inputs if before is not None]
    return found


class _Rows:
    """Values of a graph at the wanted rows of every request, each written once."""

    def __init__(self, graph: ir.Graph, pick: ir.Node, needed: set[ir.Value]) -> None:
        """pick: picks rows of [batch * sequence, ...]; needed: what is computed for all tokens anyway."""
        assert pick.inputs[1] is not None
        self._write, self._index, self._needed = Writer(graph, pick, "wanted"), pick.inputs[1], needed
        self._known: dict[ir.Value, ir.Value | None] = {}

    def of(self, value: ir.Value, axis: int) -> ir.Value | None:
        """`value`, whose tokens lie along `axis`, at the wanted rows; None where that cannot be had."""
        if value not in self._known:
            computed = None if value in self._needed else self._computed(value, axis)
            self._known[value] = computed or self._picked(value, axis)
        return self._known[value]

    def _computed(self, value: ir.Value, axis: int) -> ir.Value | None:
        """The node that makes `value`, once more, on the rows of its operands."""
        node = value.producer()
        axes = {} if node is None else _axes_of_operands(node, value, axis)
        rows = {index: self.of(operand, at) for index, (operand, at) in axes.items()}
        if node is None or not rows or any(operand is None for operand in rows.values()):
            return None
        inputs = [rows.get(index, operand) for index, operand in enumerate(node.inputs)]
        attributes = list(node.attributes.values())
        if node.op_type == "Reshape":
            inputs[1], attributes = self._shape(value), []
        output = ir.Value(name=f"{value.name}.wanted", type=value.type)
        name = f"{node.name}.wanted"
        self._write.before.prepend(ir.Node("", node.op_type, inputs, attributes, outputs=[output], name=name))
        return output

    def _shape(self, value: ir.Value) -> ir.Value:
        """What Reshape takes for [batch, rows, ...]: 0 leaves an axis as it is."""
        assert value.shape is not None
        sizes = [0, 0, *map(int, value.shape[2:])]  # type: ignore[arg-type]
        return self._write.constant(f"wanted.shape_{'_'.join(map(str, sizes))}", sizes, INT64)

    def _picked(self, value: ir.Value, axis: int) -> ir.Value | None:
        """Rows of `value` itself: of [batch, sequence, width] or [batch, 1, sequence, width]."""
        shape, dtype = value.shape, value.dtype
        if shape is None or dtype is None or len(shape) != axis + 2 or any(size != 1 for size in shape[1:axis]):
            return None
        flat = self._write.op("Flatten", [value], dtype, axis=axis + 1)
        rows = self._write.op("Gather", [flat, self._index], dtype, axis=0)
        if axis == 1:
            return rows
        return self._write.op("Unsqueeze", [rows, self._write.constant("wanted.heads", [1], INT64)], dtype)


def _axes_of_operands(node: ir.Node, value: ir.Value, axis: int) -> dict[int, tuple[ir.Value, int]]:
    """The operands that have the tokens of a node's result, and along which axis; none where that is not known."""
    operands = {index: operand for index, operand in enumerate(node.inputs) if operand is not None}
    shapes = {index: operand.shape for index, operand in operands.items() if operand.shape is not None}
    own, kind = value.shape, node.op_type
    if own is None or len(shapes) < len(operands):
        return {}
    found: dict[int, int] = {}
    if kind in ATTENDING and axis == 2:
        found = {i: at for i, at in ATTENDING[kind].items() if i in shapes and shapes[i][at] != 1}  # 1: of all tokens
    elif kind == "Transpose":
        found = {0: node.attributes["perm"].as_ints()[axis]}
    elif kind in BROADCAST:
        places = {index: axis + len(shape) - len(own) for index, shape in shapes.items()}
        found = {i: at for i, at in places.items() if at >= 0 and not isinstance(shapes[i][at], int)}
    elif kind == "Gather" and node.attributes.get_int("axis", 0) == 0 and 1 in shapes and axis < len(shapes[1]):
        found = {1: axis}  # rows of a table
    elif kind == "Concat" and node.attributes["axis"].as_int() % len(own) > axis:
        found = dict.fromkeys(operands, axis)
    elif kind in WITHIN and shapes[0][: axis + 1] == own[: axis + 1] and axis < len(own) - 1:
        found = {0: axis}
    return {index: (operands[index], at) for index, at in found.items()}
