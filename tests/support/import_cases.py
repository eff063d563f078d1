"""Graphs of a node or two, checked."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from specbeam.graphs.decompose import decompose
from specbeam.graphs.fold import fold_weights
from specbeam.graphs.index_mask import index_mask
from specbeam.graphs.lower import lower
from specbeam.graphs.tensorrt import Finding, check_versions

PATH = 3


OLD, TABLED, NEW = (10, 14), (10, 15), (11, 0)


def graph(
    text: str, weights: dict[str, np.ndarray[Any, Any]] | None = None, *, opset: int = 23, also: str = ""
) -> ir.Model:
    """A model of ONNX's text form, `g (inputs) => (outputs) { nodes }`, with `weights` as initializers."""
    header = f'<ir_version: 10, opset_import: ["" : {opset}{also}]>'
    return ir.from_onnx_text(
        f"{header} {text}", [ir.tensor(array, name=name) for name, array in (weights or {}).items()]
    )


def found(model: ir.Model, version: tuple[int, int]) -> list[Finding]:
    """What one version says."""
    return list(check_versions(model, "graph", [version]).versions[0].findings)


def refusals(model: ir.Model, version: tuple[int, int] = TABLED) -> list[Finding]:
    return [finding for finding in found(model, version) if finding.severity == "refused"]


def only(model: ir.Model, version: tuple[int, int] = TABLED) -> Finding:
    """The one finding about a model that is neither a note nor more than one."""
    (finding,) = [finding for finding in found(model, version) if finding.severity != "note"]
    return finding


def for_gpus(path: Path, precision: str) -> ir.Model:
    model = ir.load(path)
    fold_weights(model)
    decompose(model)
    index_mask(model, PATH)
    if precision != "fp32":
        lower(model, precision)
    return model
