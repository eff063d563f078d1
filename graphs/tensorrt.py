"""Whether TensorRT imports a graph, told without TensorRT and without a GPU; and how that is reported.

The parser's published table (`tensorrt_ops`) and the rules of strongly typed, explicitly quantized networks are
held against every node. "Importable" is not yet "buildable": tactics, memory and fusions are the builder's to find.
"""

from collections.abc import Iterator, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ..catalog.errors import EngineError
from ..catalog.files import Frozen
from . import tensorrt_ops as ops
from .tensorrt_ops import OLDEST, VERSIONS, Version
from .tensorrt_rules import dotted, node_problems
from .tensorrt_values import Severity, type_name

AXES = ("batch", "sequence", "past", "rows", "prompt")  # the open axes that profiles give sizes to
EXAMPLES = 3  # nodes named beside a finding that many share
BASIS = (
    f"By version: known from the parser's published table of TensorRT {dotted(ops.TABLE)}; later versions are taken to "
    "import what it does."
)
NOT_ASKED = "No parser of TensorRT's own was asked, and the last word is the parser's: build-engine, where TensorRT is."


class Finding(Frozen, frozen=True):
    """One thing that TensorRT refuses, that is unknown, or that is worth knowing."""

    severity: Severity
    node: str  # the node's name, or an input's
    operator: str  # ONNX's name of the operator; "input", "output" or "graph" for what is no node
    message: str  # what was got, what is expected, what to do; the same text for the same fault


class VersionCheck(Frozen, frozen=True):
    """What one version of TensorRT makes of a graph."""

    tensorrt: str
    importable: bool  # nothing is refused; what is unknown does not count
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Findings of one kind."""
        return sum(finding.severity == severity for finding in self.findings)


class ParserCheck(Frozen, frozen=True):
    """What TensorRT's own parser, which is installed here, makes of a graph."""

    parser: str  # whose: "TensorRT for RTX 1.7.1.116"
    importable: bool
    findings: tuple[Finding, ...]  # in the parser's own words


class GraphCheck(Frozen, frozen=True):
    """One graph against several versions."""

    graph: str  # how the report calls it: "target, int8"
    nodes: int
    versions: tuple[VersionCheck, ...]
    parsers: tuple[ParserCheck, ...] = ()  # that were asked on this machine; empty where there is none

    @property
    def importable(self) -> bool:
        """Whether every version that is looked at imports it, and every parser that was asked."""
        by_table = all(version.importable for version in self.versions)
        return by_table and all(parser.importable for parser in self.parsers)


def check_versions(model: ir.Model, name: str, versions: Sequence[Version] = VERSIONS) -> GraphCheck:
    """Everything about `model` that versions of TensorRT refuse, or that cannot be told; the model is not changed.

    name: what the report calls the graph; versions: (major, minor). Raises `EngineError` for versions before 10.14,
    which have no Attention.
    """
    typed = _typed(model)
    checks = []
    for version in versions:
        findings = tuple(_findings(typed, version))
        importable = all(finding.severity != "refused" for finding in findings)
        checks.append(VersionCheck(tensorrt=dotted(version), importable=importable, findings=findings))
    return GraphCheck(graph=name, nodes=sum(1 for _ in model.graph.all_nodes()), versions=tuple(checks))


def report(checks: Sequence[GraphCheck], absent: Sequence[str] = ()) -> str:
    """The checks as text: a verdict per graph and version, then what was found, equal findings together.

    absent: why parsers of TensorRT's own could not be asked here.
    """
    lines = []
    for check in checks:
        lines.append(f"{check.graph}: {check.nodes} nodes")
        shown: dict[tuple[Finding, ...], str] = {}
        for version in check.versions:
            lines.append(f"  TensorRT {version.tensorrt:<6} {_verdict(version.findings)}")
            if version.findings in shown:
                lines.append(f"    the same as for {shown[version.findings]}")
            elif version.findings:
                shown[version.findings] = version.tensorrt
                lines += _grouped(version.findings)
        for own in check.parsers:
            lines += [f"  parsed by {own.parser}'s own parser: {_verdict(own.findings)}", *_grouped(own.findings)]
    asked = dict.fromkeys(own.parser for check in checks for own in check.parsers)
    lines += ["", BASIS, f"Parsed here by: {', '.join(asked)}." if asked else NOT_ASKED]
    return "\n".join([*lines, *(f"Not asked: {reason}" for reason in absent)])


def _verdict(findings: Sequence[Finding]) -> str:
    refused = [finding for finding in findings if finding.severity == "refused"]
    if refused:
        operators = ", ".join(sorted({finding.operator for finding in refused}))
        return f"not importable: {_many(len(refused), 'finding')} on {operators}"
    unknown = sum(finding.severity == "unknown" for finding in findings)
    return f"importable, as far as can be told: {unknown} unknown" if unknown else "importable"


def _grouped(findings: Sequence[Finding]) -> Iterator[str]:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.operator, finding.message), []).append(finding.node)
    for severity, operator, message in sorted(groups, key=lambda key: ("refused", "unknown", "note").index(key[0])):
        nodes = groups[severity, operator, message]
        more = f" and {len(nodes) - EXAMPLES} more" if len(nodes) > EXAMPLES else ""
        yield f"    {severity:<8} {len(nodes):>5} x {operator} {message}"
        yield f"             {'':>7} {', '.join(nodes[:EXAMPLES])}{more}"


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _refused(node: str, operator: str, message: str) -> Finding:
    return Finding(severity="refused", node=node, operator=operator, message=message)


def _typed(model: ir.Model) -> ir.Model:
    """A copy (weights shared) in which values have types and shapes as far as ONNX can infer them."""
    copy = model.clone()
    return ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(copy).model


def _findings(model: ir.Model, version: Version) -> list[Finding]:
    """What one version says about a model whose types are inferred."""
    if version < OLDEST:
        raise EngineError(f"Got TensorRT {dotted(version)}; expected {dotted(OLDEST)} or later. Install a newer one.")
    findings = []
    opset = model.opset_imports.get("", 0)
    highest = max(top for since, top in ops.HIGHEST_OPSET.items() if since <= version)
    if not ops.LOWEST_OPSET <= opset <= highest:
        wanted = f"expected {ops.LOWEST_OPSET} to {highest}"
        findings.append(_refused("graph", "graph", f"is of opset {opset}, {wanted}: export it with opset 23"))
    findings += _check_ends(model)
    fed = _fed_by_inputs(model)
    for node in model.graph.all_nodes():
        name = node.name or str(node.outputs[0].name)
        for severity, message in node_problems(node, version, opset):
            findings.append(Finding(severity=severity, node=name, operator=node.op_type, message=message))
        if any(node.inputs[i] in fed for i in ops.SHAPE_OPERANDS.get(node.op_type, ()) if i < len(node.inputs)):
            text = "takes a shape from the values of an input; profiles give shapes alone: compute it from Shape"
            findings.append(_refused(name, node.op_type, text))
    return findings


def _check_ends(model: ir.Model) -> Iterator[Finding]:
    """Types of inputs and outputs, and open axes that no profile knows."""
    ends = [("input", value) for value in model.graph.inputs] + [("output", value) for value in model.graph.outputs]
    for kind, value in ends:
        if type_name(value) not in ops.NETWORK_TYPES:
            allowed = ", ".join(sorted(ops.NETWORK_TYPES))
            yield _refused(str(value.name), kind, f"is of {type_name(value)}, expected one of {allowed}")
    for value in model.graph.inputs:
        for place, axis in enumerate(_axes(value)):
            if isinstance(axis, str) and not set(axis.split("+")) <= set(AXES):
                got = f"has the open axis {axis or 'without a name'} at {place}, expected one of {', '.join(AXES)}"
                yield _refused(str(value.name), "input", f"{got}: fix its size when the graph is made")
        if value.name == "attention_mask":
            text = "is a dense mask, which crosses the bus at every call: graphs for GPUs take indices instead"
            yield Finding(severity="note", node="attention_mask", operator="input", message=text)


def _fed_by_inputs(model: ir.Model) -> set[ir.Value | None]:
    """Values that depend on the values of the graph's inputs, and not on their shapes alone."""
    fed: set[ir.Value | None] = set(model.graph.inputs)
    for node in model.graph.all_nodes():
        if node.op_type not in ("Shape", "Size") and any(value in fed for value in node.inputs if value is not None):
            fed.update(node.outputs)
    return fed


def _axes(value: ir.Value) -> list[int | str]:
    """A value's axes: sizes, and names of those that are open ("" without one)."""
    shape = value.shape if value.shape is not None else ()
    return [dim if isinstance(dim, int) else str(dim.value or "").replace(" ", "") for dim in shape]
