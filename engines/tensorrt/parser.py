"""TensorRT's own ONNX parser, where it is installed: what it says about a graph.

The parser needs a builder, and the builder of TensorRT needs an NVIDIA GPU; that of TensorRT for RTX does not.
"""

from pathlib import Path
from typing import Any

from ...catalog.errors import EngineError
from ...graphs.tensorrt import Finding, ParserCheck
from .flavour import RTX, TENSORRT, Flavour
from .library import Messages, import_tensorrt, new_logger, new_tool


class OwnParser:
    """The parser of an installed flavour, and the builder that its networks are made by."""

    def __init__(self, flavour: Flavour) -> None:
        """Raises `EngineError` where the flavour's module cannot be imported or its builder does not start."""
        self.precisions = flavour.precisions
        self._trt: Any = import_tensorrt(flavour)
        self.name = f"{flavour.title} {self._trt.__version__}"
        self._messages = Messages()
        self._logger = new_logger(self._trt, self._messages)
        self._builder = new_tool(self._trt.Builder, self._logger, self._messages, flavour)

    def check(self, graph: Path) -> ParserCheck:
        """What the parser makes of a graph: all it finds, in a strongly typed network as build-engine's."""
        network = self._builder.create_network(1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = self._trt.OnnxParser(network, self._logger)
        imported = bool(parser.parse_from_file(str(graph)))
        found = [_finding(parser.get_error(i)) for i in range(parser.num_errors)]
        if not imported and not found:
            found = [Finding(severity="refused", node="graph", operator="graph", message=self._messages.last())]
        return ParserCheck(parser=self.name, importable=imported, findings=tuple(found))


def own_parsers() -> tuple[list[OwnParser], list[str]]:
    """The parsers that can be asked on this machine, and of each other flavour why it cannot."""
    parsers, reasons = [], []
    for flavour in (RTX, TENSORRT):
        try:
            parsers.append(OwnParser(flavour))
        except EngineError as error:
            reasons.append(str(error))
    return parsers, reasons


def _finding(error: Any) -> Finding:
    """What the parser says of one node."""
    message = " ".join(str(error.desc()).split())
    name, operator = error.node_name() or "a node without a name", error.node_operator() or "graph"
    return Finding(severity="refused", node=name, operator=operator, message=message)
