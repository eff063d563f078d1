"""What TensorRT's ONNX parser says about one node: the rules that read `tensorrt_ops` and the graph around it."""

from collections.abc import Iterator, Sequence

import onnx
import onnx_ir as ir

from . import tensorrt_ops as ops
from .tensorrt_ops import Version
from .tensorrt_quantization import quantization_problems
from .tensorrt_values import Problem, either, is_constant, operand, type_name


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
            yield from quantization_problems(node)
    if node.op_type in ops.UNCHECKED:
        yield "unknown", f"is imported with a restriction that is not checked: {ops.UNCHECKED[node.op_type]}"


def dotted(version: Version) -> str:
    """10.15 and the like."""
    return ".".join(map(str, version))


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


def _given(node: ir.Node, indices: Sequence[int]) -> list[tuple[int, ir.Value]]:
    return [(index, value) for index in indices if (value := operand(node, index)) is not None]


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
            yield "refused", f"works on {name}, expected {either(sorted(allowed))}: {advice}"


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
    query, mask = operand(node, 0), operand(node, 3)
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
    data = operand(node, 0)
    if operand(node, 1) is None and data is not None and not (data.shape is not None and data.shape.is_static()):
        since = dotted(ops.SQUEEZE_ALL)
        yield "refused", f"has no axes on a shape that is not fixed, which is imported since {since} alone: name them"


def _top_k(node: ir.Node) -> Iterator[Problem]:
    tensor = None if (value := operand(node, 1)) is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        yield "unknown", f"computes K, which must stay below {ops.TOP_K_BELOW} at run time"
    elif int(tensor.numpy().item()) >= ops.TOP_K_BELOW:
        yield "refused", f"has K {int(tensor.numpy().item())}, expected less than {ops.TOP_K_BELOW}"
