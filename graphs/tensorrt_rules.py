"""What TensorRT's ONNX parser says about one node: the rules that read `tensorrt_ops` and the graph around it."""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from . import tensorrt_ops as ops
from .tensorrt_ops import Version

Severity = Literal["refused", "unknown", "note"]
Problem = tuple[Severity, str]


def node_problems(node: ir.Node, version: Version, opset: int) -> Iterator[Problem]:
    """Why TensorRT `version` refuses a node of a typed graph (or may: "unknown"); nothing when it imports it."""
    importable = _availability(node, version)
    if importable is not None:
        yield importable
        return
    schema = _schema(node.op_type, opset)
    yield from _types(node)
    yield from _alike(node, schema)
    yield from _operands(node, schema)
    yield from _results(node)
    yield from _attributes(node)
    match node.op_type:
        case "Attention":
            yield from _mask(node)
        case "RMSNormalization":
            yield from _weight(node)
        case "TopK":
            yield from _top_k(node)
        case "Squeeze" if version < ops.SQUEEZE_ALL:
            yield from _squeeze(node)
        case "QuantizeLinear" | "DequantizeLinear":
            yield from _quantization(node)
    if node.op_type in ops.UNCHECKED:
        yield "unknown", f"is imported with a restriction that is not checked: {ops.UNCHECKED[node.op_type]}"


def type_name(value: ir.Value) -> str:
    """The element type as the parser's table writes it: FP16, INT64, ...; "?" where it was not inferred."""
    if value.dtype is None or value.dtype == ir.DataType.UNDEFINED:
        return "?"
    return ops.NAMES.get(value.dtype.name, value.dtype.name)


def dotted(version: Version) -> str:
    """10.15 and the like."""
    return ".".join(map(str, version))


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


def _availability(node: ir.Node, version: Version) -> Problem | None:
    """The one problem that makes all others pointless: the operator is not imported at all."""
    name = node.op_type
    if node.domain:
        return "refused", f"is of the domain {node.domain}; only ONNX's own operators are imported: build it from those"
    if name in ops.UNTABLED and version >= ops.UNTABLED[name]:
        since = dotted(ops.UNTABLED[name])
        return "unknown", f"is imported since {since}, with types and restrictions that are not published"
    if name not in ops.OPERATORS:
        listed = "listed as not imported" if name in ops.REFUSED else "not in the table of operators"
        return "refused", f"is {listed}: {_instead(name)}"
    if version < ops.SINCE.get(name, version):
        return "refused", f"is imported since {dotted(ops.SINCE[name])} alone: decompose it, or build with that version"
    return None


def _instead(name: str) -> str:
    if name in ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger") or name.startswith("QLinear"):
        return "quantize statically, to QuantizeLinear and DequantizeLinear around the float operator"
    return "build it from operators that are"


def _schema(name: str, opset: int) -> onnx.defs.OpSchema | None:
    """ONNX's own word on an operator; None for the few that the parser alone knows."""
    return onnx.defs.get_schema(name, opset, "") if onnx.defs.has(name, opset, "") else None


def _parameter(schema: onnx.defs.OpSchema | None, index: int) -> str:
    """What ONNX calls an operand; the last name stands for all that follow (Concat has any number)."""
    if schema is None or not schema.inputs:
        return f"operand {index}"
    return str(schema.inputs[min(index, len(schema.inputs) - 1)].name)


def _operand(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _given(node: ir.Node, indices: Sequence[int]) -> list[tuple[int, ir.Value]]:
    return [(index, value) for index in indices if (value := _operand(node, index)) is not None]


def _types(node: ir.Node) -> Iterator[Problem]:
    """Every data operand has a type that the table lists."""
    allowed = ops.OPERATORS[node.op_type]
    values = [value for _, value in _given(node, ops.DATA_OPERANDS.get(node.op_type, (0,)))]
    if node.op_type in ops.DATA_RESULTS:
        values.append(node.outputs[0])
    for name in dict.fromkeys(map(type_name, values)):
        if name == "?":
            yield "unknown", "has an operand whose type could not be inferred: run onnx.checker on the graph"
        elif name not in allowed:
            advice = "quantize to INT8" if node.op_type == "DequantizeLinear" else "cast before it"
            yield "refused", f"works on {name}, expected {_either(sorted(allowed))}: {advice}"


def _alike(node: ir.Node, schema: onnx.defs.OpSchema | None) -> Iterator[Problem]:
    """Operands that share a type have one type: TensorRT casts nothing by itself in a strongly typed network."""
    groups: dict[str, list[int]] = {}
    for index, _ in _given(node, range(len(node.inputs))):
        if schema is not None and schema.inputs:
            parameter = schema.inputs[min(index, len(schema.inputs) - 1)]
            if parameter.is_homogeneous and "(" not in parameter.type_str:  # with brackets: one fixed type
                groups.setdefault(parameter.type_str, []).append(index)
    found = [(tuple(indices), _names(node, indices)) for indices in groups.values()]
    if node.op_type in ops.ALIKE:  # of floating types: a whole exponent is fine
        indices = ops.ALIKE[node.op_type]
        found.append((indices, _names(node, indices) & ops.OPERATORS["MatMul"]))
    for operands, types in found:
        if len(types - {"?"}) > 1:
            names = dict.fromkeys(_parameter(schema, index) for index in operands)
            got = f"has {' and '.join(sorted(types))} in {', '.join(names)}"
            yield "refused", f"{got}, expected one type: networks are strongly typed, so cast one of them"


def _names(node: ir.Node, indices: Sequence[int]) -> set[str]:
    return {type_name(value) for _, value in _given(node, indices)}


def _operands(node: ir.Node, schema: onnx.defs.OpSchema | None) -> Iterator[Problem]:
    """Operands that must be constant, absent, or of one rank or type."""
    for _, value in _given(node, [ops.BUILD_TIME[node.op_type]] if node.op_type in ops.BUILD_TIME else []):
        if not is_constant(value, ops.READ_THROUGH.get(node.op_type)):
            name = _parameter(schema, ops.BUILD_TIME[node.op_type])
            yield "refused", f"computes {name}, expected a constant: make it an initializer"
    for index, _ in _given(node, ops.ABSENT.get(node.op_type, ())):
        yield "refused", f"has {_parameter(schema, index)}, which is not imported: compute it outside of the operator"
    ranks = ops.RANKS.get(node.op_type, {})
    for index, value in _given(node, list(ranks)):
        if value.shape is None:
            yield "unknown", f"has {_parameter(schema, index)} of a rank that could not be inferred"
        elif len(value.shape) != ranks[index]:
            got, wanted = len(value.shape), ranks[index]
            yield "refused", f"has {_parameter(schema, index)} in {got}D, expected {wanted}D: reshape it"
    types = ops.OPERAND_TYPES.get(node.op_type, {})
    for index, value in _given(node, list(types)):
        if type_name(value) not in ("?", types[index]):
            yield "refused", f"has {_parameter(schema, index)} of {type_name(value)}, expected {types[index]}: cast it"


def _results(node: ir.Node) -> Iterator[Problem]:
    if node.op_type in ops.ONE_OUTPUT and any(output.name for output in node.outputs[1:]):
        yield "refused", f"makes {len(node.outputs)} outputs, expected the first alone: drop the others"
    if node.op_type in ops.DATA_SHAPED:
        yield "refused", "has results whose size depends on the data; an engine's buffers are sized before a call"


def _attributes(node: ir.Node) -> Iterator[Problem]:
    for name, wanted in ops.ATTRIBUTES.get(node.op_type, {}).items():
        if name in node.attributes:
            value = node.attributes[name].value
            if wanted is None or value != wanted:
                expected = "none" if wanted is None else wanted
                yield "refused", f"has {name} {value}, expected {expected}: the attribute is not imported"


def _mask(node: ir.Node) -> Iterator[Problem]:
    query, mask = _operand(node, 0), _operand(node, 3)
    if query is None or mask is None:
        return
    if type_name(mask) not in ("BOOL", type_name(query), "?"):
        got = f"has a mask of {type_name(mask)} with queries of {type_name(query)}"
        yield "refused", f"{got}, expected the queries' type or BOOL: cast the mask"
    if "is_causal" in node.attributes and node.attributes["is_causal"].as_int():
        yield "refused", "has a mask and is_causal, expected one of them: put the causal part into the mask"


def _weight(node: ir.Node) -> Iterator[Problem]:
    names = _names(node, (0, 1))
    if len(names) > 1:
        yield "unknown", f"has {' and '.join(sorted(names))} in X, scale; one type for both is sure to be imported"


def _squeeze(node: ir.Node) -> Iterator[Problem]:
    data = _operand(node, 0)
    if _operand(node, 1) is None and data is not None and not (data.shape is not None and data.shape.is_static()):
        since = dotted(ops.SQUEEZE_ALL)
        yield "refused", f"has no axes on a shape that is not fixed, which is imported since {since} alone: name them"


def _top_k(node: ir.Node) -> Iterator[Problem]:
    tensor = None if (value := _operand(node, 1)) is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        yield "unknown", f"computes K, which must stay below {ops.TOP_K_BELOW} at run time"
    elif int(tensor.numpy().item()) >= ops.TOP_K_BELOW:
        yield "refused", f"has K {int(tensor.numpy().item())}, expected less than {ops.TOP_K_BELOW}"


def _quantization(node: ir.Node) -> Iterator[Problem]:
    """The rules of explicit quantization."""
    data, scale = _operand(node, 0), _operand(node, 1)
    if data is None or scale is None:
        return
    yield from _scale(scale)
    yield from _zero_point(node)
    tensor = ir.convenience.get_const_tensor(scale)
    channels = None if tensor is None or tensor.size == 1 else tensor
    yield from (_quantized if node.op_type == "QuantizeLinear" else _dequantized)(node, data, channels)


def _quantized(node: ir.Node, data: ir.Value, channels: ir.TensorProtocol | None) -> Iterator[Problem]:
    """Q straight before DQ, one scale for an activation; channels: the scales where there are several."""
    uses = [use.node.op_type for use in node.outputs[0].uses()]
    if node.outputs[0].is_graph_output() or any(name != "DequantizeLinear" for name in uses):
        users = _either(sorted({name for name in uses if name != "DequantizeLinear"}) or ["an output of the graph"])
        yield "refused", f"feeds {users}, expected DequantizeLinear alone: Q and DQ come in pairs"
    if channels is not None and not is_constant(data):
        yield "refused", f"has {channels.size} scales on an activation, expected 1: weights alone have one a channel"


def _dequantized(node: ir.Node, data: ir.Value, channels: ir.TensorProtocol | None) -> Iterator[Problem]:
    """DQ behind Q, or behind a weight that is stored as INT8; channels: the scales where there are several."""
    producer = data.producer()
    if not is_constant(data) and (producer is None or producer.op_type != "QuantizeLinear"):
        before = "an input of the graph" if producer is None else producer.op_type
        yield "refused", f"reads {before}, expected QuantizeLinear or a constant weight: Q and DQ come in pairs"
    if channels is not None:
        yield from _channels(node, data, channels)


def _channels(node: ir.Node, data: ir.Value, scale: ir.TensorProtocol) -> Iterator[Problem]:
    """One scale for each output channel of a weight, which in MatMul's second operand is the last axis."""
    if data.shape is None:
        yield "unknown", "has scales per channel of data whose shape could not be inferred"
        return
    rank = len(data.shape)
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    axis += rank if axis < 0 else 0
    if len(scale.shape) != 1 or axis >= rank or data.shape[axis] not in (scale.size, None):
        got = f"has scales {list(scale.shape.numpy())} on axis {axis} of {data.shape}"
        yield "refused", f"{got}, expected one scale for each index of that axis (INT8 is not quantized in blocks)"
    elif any(use.node.op_type == "MatMul" and use.idx == 1 for use in node.outputs[0].uses()) and axis != rank - 1:
        yield "refused", f"has scales on axis {axis} of MatMul's weight, expected its output channels, axis {rank - 1}"


def _scale(scale: ir.Value) -> Iterator[Problem]:
    tensor = ir.convenience.get_const_tensor(scale)
    if tensor is None:
        yield "refused", "computes its scale, expected a constant: quantize statically"
    elif not bool(np.all(tensor.numpy().astype(np.float32) > 0)):  # a small FP32 scale may become 0 in FP16
        yield "refused", "has a scale that is not positive: calibrate again, or leave the node in float"


def _zero_point(node: ir.Node) -> Iterator[Problem]:
    zero = _operand(node, 2)
    if zero is None:
        stated = node.attributes["output_dtype"].as_int() if "output_dtype" in node.attributes else None
        if node.op_type == "QuantizeLinear" and stated != int(ir.DataType.INT8):
            yield "refused", "has no zero point, which means UINT8 in ONNX and INT8 here: give it an INT8 zero"
        return
    tensor = ir.convenience.get_const_tensor(zero)
    if tensor is None:
        yield "refused", "computes its zero point, expected a constant 0: quantize statically and symmetrically"
    elif type_name(zero) not in ops.OPERATORS["DequantizeLinear"]:
        yield "refused", f"has a zero point of {type_name(zero)}, expected INT8: quantize symmetrically"
    elif bool(np.any(tensor.numpy().astype(np.float32) != 0)):
        yield "refused", "has a zero point that is not 0, expected 0: quantize symmetrically"


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
