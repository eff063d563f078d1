"""TensorRT's own ONNX parser, where it is installed: what it says about a graph.

The parser needs a builder, and the builder of TensorRT needs an NVIDIA GPU; that of TensorRT for RTX does not.
"""

import importlib
from pathlib import Path
from typing import Any

from ...catalog.errors import EngineError, is_fault, said
from ...graphs.tensorrt import Finding, ParserCheck
from ..bundle.facts import EnginePrecision
from .library import Messages, new_logger, new_tool

# By module: what the flavour is called, and the precisions that are built with it.
FLAVOURS: dict[str, tuple[str, tuple[EnginePrecision, ...]]] = {
    "tensorrt_rtx": ("TensorRT for RTX", ("fp32", "fp16", "bf16", "int8-weights")),
    "tensorrt": ("TensorRT", ("fp32", "fp16", "bf16", "int8")),
}


class OwnParser:
    """The parser of an installed flavour, and the builder that its networks are made by."""

    def __init__(self, module: str) -> None:
        """Raises `EngineError` where the module cannot be imported or its builder does not start."""
        title, self.precisions = FLAVOURS[module]
        try:
            self._trt: Any = importlib.import_module(module)
        except BaseException as error:  # the package may be here, and its libraries not
            if not is_fault(error):
                raise
            reason = str(error) if isinstance(error, ImportError) else said(error)
            raise EngineError(f"{title} is not usable here ({reason})") from error
        self.name = f"{title} {self._trt.__version__}"
        self._messages = Messages()
        self._logger = new_logger(self._trt, self._messages)
        self._builder = new_tool(self._trt.Builder, self._logger, self._messages)

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
    for module in FLAVOURS:
        try:
            parsers.append(OwnParser(module))
        except EngineError as error:
            reasons.append(str(error))
    return parsers, reasons


def _finding(error: Any) -> Finding:
    """What the parser says of one node."""
    message = " ".join(str(error.desc()).split())
    name, operator = error.node_name() or "a node without a name", error.node_operator() or "graph"
    return Finding(severity="refused", node=name, operator=operator, message=message)
