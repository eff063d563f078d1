"""What the rules of TensorRT's parser ask of a graph's values."""

from collections.abc import Collection, Sequence
from typing import Literal

import onnx_ir as ir

from . import tensorrt_ops as ops

Severity = Literal["refused", "unknown", "note"]
Problem = tuple[Severity, str]


def type_name(value: ir.Value) -> str:
    """The element type as the parser's table writes it: FP16, INT64, ...; "?" where it was not inferred."""
    if value.dtype is None or value.dtype == ir.DataType.UNDEFINED:
        return "?"
    return ops.NAMES.get(value.dtype.name, value.dtype.name)


def is_constant(value: ir.Value, through: Collection[str] | None = None) -> bool:
    """Whether a value can be computed when the engine is built: from weights and constants alone.

    through: operators that may stand between; None: any.
    """
    waiting, seen = [value], {value}
    while waiting:  # no recursion: in front of an activation lies the whole network
        current = waiting.pop()
        if ir.convenience.get_const_tensor(current) is not None:
            continue
        producer = current.producer()
        if producer is None or not producer.inputs or not (through is None or producer.op_type in through):
            return False
        before = {operand for operand in producer.inputs if operand is not None} - seen
        seen |= before
        waiting.extend(before)
    return True


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """An operand of a node; None where it is not given."""
    return node.inputs[index] if index < len(node.inputs) else None


def either(names: Sequence[str]) -> str:
    """Such as "A, B or C"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
