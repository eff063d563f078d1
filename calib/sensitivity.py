"""Which layers suffer most from quantization, and the nodes to leave out so that they do not."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..catalog.errors import EngineError
from ..catalog.finite import finite
from ..engines.backend import WeightForm
from ..graphs.files import load_graph
from .calls import Calls
from .graphs import ENCODERS, READ, graphs_of
from .matmuls import weighted_matmuls
from .observe import Observer
from .quantize import Method, quantize
from .ranges import Ranges

SEARCHES = 16
HEAD = "head"
REMEDY = "Calibrate again, without --ranges and --smooth, or use another --method."

Progress = Callable[[int, int], None]  # groups done, groups in all


def sensitivity(
    graph: Path,
    calls: Calls,
    method: Method,
    *,
    ranges: Ranges | None = None,
    symmetric: bool = True,
    weights: WeightForm = "operator",
    searches: int = SEARCHES,
    threads: int = 1,
    progress: Progress = lambda done, total: None,
) -> dict[str, float]:
    """For every group of products: the divergence from the float32 graph when that group alone is quantized.

    Groups are those of `node_groups`, of an encoder beside the graph as well. The divergence is the mean over the rows
    of logits of some recorded searches of KL(float || quantized) over the catalog's tokens, in nats; caches are the
    quantized graph's own. Groups add up nearly, so the largest are the ones to leave in higher precision. Raises
    `EngineError` where one is no number.
    """
    graphs = graphs_of(graph)
    groups = [(one, node_groups(load_graph(one))) for one in graphs]
    parts = [(one, its, part) for one, its in groups for part in dict.fromkeys(its.values())]
    calls = calls.some(searches)
    expected = _logprobs(graphs, calls, threads)
    found = {}
    with TemporaryDirectory(prefix="sensitivity.") as folder:
        for done, (one, its, part) in enumerate(parts):
            progress(done, len(parts))
            others = [node for node, its_part in its.items() if its_part != part]
            quantized, own = Path(folder, one.name), None if ranges is None else ranges.of(one)
            quantize(one, quantized, method, ranges=own, exclude=others, symmetric=symmetric, weights=weights)
            got = _logprobs([quantized if each is one else each for each in graphs], calls, threads)
            divergence = mean_divergence(expected, got)
            found[part] = finite(divergence, f"The divergence of {part}, quantized by {method},", REMEDY, EngineError)
    progress(len(parts), len(parts))
    return found


def _logprobs(graphs: Sequence[Path], calls: Calls, threads: int) -> list[NDArray[Any]]:
    """What a role's graphs say to every call."""
    decoder, *encoder = graphs
    observer = Observer(decoder, ["logprobs"], threads=threads, encoder=encoder[0] if encoder else None)
    return [logprobs for (logprobs,) in observer.run(calls)]


def mean_divergence(expected: list[NDArray[Any]], got: list[NDArray[Any]]) -> float:
    """Mean KL(expected || got) in nats over all rows of arrays [1, R, C]; rows are normalised over the C columns."""
    rows = [_divergences(*pair) for pair in zip(expected, got, strict=True)]
    return float(np.concatenate(rows).mean())


def _divergences(expected: NDArray[Any], got: NDArray[Any]) -> NDArray[np.float64]:
    p, q = (_normalised(logprobs.reshape(-1, logprobs.shape[-1])) for logprobs in (expected, got))
    with np.errstate(invalid="ignore"):
        each = np.exp(p) * (p - q)
    each[np.isneginf(p)] = 0  # what has no probability adds nothing
    divergences: NDArray[np.float64] = each.sum(axis=1)
    return divergences


def _normalised(logprobs: NDArray[Any]) -> NDArray[np.float64]:
    wide = logprobs.astype(np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return normalised


def node_groups(model: ir.Model) -> dict[str, str]:
    """The group of every product with a weight, by its node's name, in the graph's order.

    Told by the graph alone: a product belongs to the layer of the last attention before it, those that feed an
    attention directly (q, k, v) to that one's, and the one that feeds the output directly is the head. Layers are
    "layers.0", "layers.1", ...; those of an encoder "encoder.layers.0", ..., and its head is "encoder.read": what
    makes keys and values of what it has read.
    """
    given, taken = ([str(value.name) for value in values] for values in (model.graph.outputs, model.graph.inputs))
    reads = given[0].startswith(READ)
    prefix, head = (ENCODERS, f"{ENCODERS}read") if reads else ("", HEAD)
    a_layer = 2 if taken[-1].startswith(READ) else 1  # of attentions: to what was decoded, and to what was read
    passed: dict[ir.Value, int] = {}  # attentions on the way to a value
    products = {str(node.name) for node in weighted_matmuls(model)}
    groups: dict[str, str] = {}
    for node in model.graph:
        before = max((passed.get(value, 0) for value in node.inputs if value is not None), default=0)
        is_attention = node.op_type == "Attention"
        passed |= dict.fromkeys(node.outputs, before + is_attention)
        if node.name in products:
            groups[str(node.name)] = f"{prefix}layers.{max(before - 1, 0) // a_layer}"
        elif is_attention:
            groups |= dict.fromkeys(_nearest(node.inputs[:3], products), f"{prefix}layers.{before // a_layer}")
    ends = model.graph.outputs if reads else model.graph.outputs[:1]
    return groups | dict.fromkeys(_nearest(ends, products), head)


def _nearest(values: Collection[ir.Value | None], products: Collection[str | None]) -> set[str]:
    """The products from which values are made without another product between."""
    found, open_values = set(), list(values)
    seen: set[ir.Value] = set()
    while open_values:
        value = open_values.pop()
        node = None if value is None or value in seen else value.producer()
        if value is None or node is None:
            continue
        seen.add(value)
        if node.name in products:
            found.add(str(node.name))
        else:
            open_values += node.inputs
    return found


def exclusions(model: ir.Model, groups: Collection[str]) -> list[str]:
    """The names of the nodes of some groups, those that the graph has, for `quantize(exclude=...)`."""
    return [node for node, group in node_groups(model).items() if group in groups]
