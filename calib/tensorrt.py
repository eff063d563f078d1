"""inspect --check tensorrt: whether TensorRT's parser imports what build-engine would give it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

from msgspec.structs import replace

from ..engines.bundle.facts import ENCODER, EnginePrecision, Role
from ..engines.bundle.items import Bundle
from ..engines.bundle.sealed import to_json
from ..engines.prepare import prepare_graph
from ..engines.tensorrt.backend import TensorRTBackend
from ..engines.tensorrt.build import graph_inputs
from ..engines.tensorrt.parser import own_parsers
from ..engines.tensorrt.profiles import check_profiles, profiles_for, reading_profile
from ..graphs.files import load_graph
from ..graphs.tensorrt import check_versions, report
from .graphs import graphs_of
from .matmuls import activations
from .quantize import Method, quantize
from .ranges import Ranges

# What can be built of a float32 bundle: its precision, and how it is quantized.
WAYS: tuple[tuple[EnginePrecision, Method | None], ...] = (
    ("fp32", None), ("fp16", None), ("bf16", None), ("int8", "static"), ("int8-weights", "weight8"),
    ("int8-weights", "weight4"),
)  # fmt: skip


class _Graph(NamedTuple):
    """A graph as the builder would get it."""

    role: Role
    precision: EnginePrecision
    name: str
    path: Path
    reads: bool  # it is an encoder


def check_bundle(path: Path, *, as_json: bool = False) -> tuple[bool, str]:
    """Whether every version that is looked at imports every graph, and a report (text or JSON).

    The graphs are converted as for an engine, in every precision that the bundle can be built in; the shapes
    of their calls are checked as well. Q/DQ nodes stand where a calibration would put them. Where a parser of TensorRT
    is installed and starts, it parses what would be built with it, and its word counts, too.
    """
    bundle = Bundle.open(path)
    backend = TensorRTBackend("cuda")
    limits, length = backend.limits(bundle), bundle.manifest.identifier_length
    parsers, absent = own_parsers()
    checks = []
    with tempfile.TemporaryDirectory(prefix="specbeam.check.") as scratch:
        for role, precision, name, graph, reads in _graphs(bundle, backend, Path(scratch)):
            facts, cache = bundle.facts(role), backend.cache(precision, bundle.manifest.precision)
            profiles = (reading_profile(limits),) if reads else profiles_for(role, facts, limits, length)
            check_profiles(profiles, facts, limits, graph_inputs(graph), identifier_length=length, cache=cache)
            parsed = tuple(parser.check(graph) for parser in parsers if precision in parser.precisions)
            checks.append(replace(check_versions(load_graph(graph), name), parsers=parsed))
    importable = all(check.importable for check in checks)
    return importable, to_json(checks).decode().rstrip() if as_json else report(checks, absent)


def _graphs(bundle: Bundle, backend: TensorRTBackend, scratch: Path) -> Iterator[_Graph]:
    """Every graph that could be built, as the builder would get it."""
    exported = bundle.manifest.precision
    ways = WAYS if exported == "fp32" else ((exported, None),)
    for role in (role for role in get_args(Role) if role == "target" or bundle.manifest.draft is not None):
        for precision, method in ways:
            name = precision if precision != "int8-weights" else f"{precision} by {method}"
            for exported_graph in graphs_of(bundle.graph(role)):
                source, reads = exported_graph, exported_graph.name == ENCODER
                if method is not None:
                    source = scratch / f"{role}-{method}-quantized" / source.name
                    ranges = unmeasured_ranges(exported_graph) if method == "static" else None
                    quantize(exported_graph, source, method, ranges=ranges, symmetric=True, weights=backend.weights)
                prepared = prepare_graph(
                    source, scratch / f"{role}-{name}" / source.name, exported=exported,
                    wanted=backend.cache(precision, exported), decomposed=True,
                    mask_slots=None if reads else backend.limits(bundle).path,
                )  # fmt: skip
                whose = f"{role}'s encoder" if reads else role
                yield _Graph(role, precision, f"{whose}, {name}", prepared, reads)


def unmeasured_ranges(graph: Path) -> Ranges:
    """Ranges that nothing was measured for: they change no node, only numbers in them."""
    tensors = dict.fromkeys(activations(load_graph(graph)), (-1.0, 1.0))
    return Ranges(
        source_sha256="", estimator="minmax", percentile=None, histories=0, calls=0, seed=0, tensors=tensors,
        channels={},
    )  # fmt: skip
