"""build-engine: optimise a bundle's graphs for one backend and device, check them, and time them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import get_args

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from ..catalog.errors import EngineError
from ..catalog.files import whole_directory, whole_file
from .base import Engine, ForwardInputs, causal
from .bundle import (
    ENGINE_FACTS,
    SCHEMA_VERSION,
    Bundle,
    EngineFacts,
    LatencyPoint,
    ModelFacts,
    Precision,
    Role,
    RoleFacts,
    file_facts,
    sealed,
)
from .ort import OrtEngine, load_ort_engine, open_session, session_options
from .registry import available_threads, backend_version

TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2}  # largest difference of a log-probability to the exported graph
NEW_TOKENS = (1, 8, 20, 40, 80, 160, 320, 480)
LATER_TOKENS = 160  # the most that calls after the prompt's bring
PAST_TOKENS = (0, 80, 400)
BATCHES = (1, 8, 32)
LONG_MS = 500  # longer calls are timed once
LONGEST_MS = 5000  # beyond a call this long, longer ones are not timed
EXTERNAL_BYTES = 1 << 30  # a protobuf holds 2 GiB at most

Progress = Callable[[str, int, int], None]  # what is done now, steps done, steps in all


def build_engine(
    bundle: str | Path | Bundle,
    *,
    backend: str = "onnxruntime",
    device: str = "cpu",
    precision: str | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Path:
    """Build `engines/<backend>-<device>-<precision>` of a bundle from its exported graphs; returns its folder.

    ONNX Runtime's graph optimisations run once, here, and their result is stored (its documentation:
    "Graph Optimizations, offline mode"). The stored graph is checked against the exported one and timed
    against the number of tokens. Raises `EngineError` where this machine cannot build or run it, and
    where the two disagree; no engine is left behind then.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    exported, threads = bundle.manifest.precision, threads or available_threads()
    if backend != "onnxruntime":
        raise EngineError(f"Cannot build for backend {backend!r}; this version builds: onnxruntime.")
    if precision not in (None, exported):
        raise EngineError(
            f"The graphs of {bundle.path} are {exported}, asked for {precision}. Export the checkpoints again with: "
            f"specrec export ... --precision {precision}"
        )
    if exported not in TOLERANCE:
        raise EngineError(
            f"The onnxruntime backend runs {', '.join(TOLERANCE)}; the graphs of {bundle.path} are {exported}."
        )
    roles: list[Role] = [role for role in get_args(Role) if role == "target" or bundle.manifest.draft]
    final = bundle.path / "engines" / f"{backend}-{device}-{exported}"
    with whole_directory(final, kind=ENGINE_FACTS, replace=overwrite) as folder:
        built = {str(role): _build_role(bundle, role, folder, device, threads, progress) for role in roles}
        engine_facts = EngineFacts(
            schema_version=SCHEMA_VERSION, backend=backend, device=device, precision=exported, threads=threads,
            versions={backend: backend_version(backend)}, roles=built, files=file_facts(folder),
        )  # fmt: skip
        with whole_file(folder / ENGINE_FACTS) as file:
            file.write(sealed(engine_facts))
    return final


def _build_role(bundle: Bundle, role: Role, folder: Path, device: str, threads: int, progress: Progress) -> RoleFacts:
    """Write one optimised graph to `folder`; check and time it."""
    source, graph = bundle.graph(role), folder / role / "model.onnx"
    facts, precision = bundle.facts(role), bundle.manifest.precision
    progress(f"optimising {role}", 0, 1)
    _optimise(source, graph, device, threads)
    engine = load_ort_engine(graph, facts, device=device, precision=precision, threads=threads)
    difference = _difference(source, engine, facts, precision, device, threads)
    if not difference <= TOLERANCE[precision]:
        raise EngineError(
            f"The optimised {role} differs from {source} by {difference:.2g} in a log-probability, allowed is "
            f"{TOLERANCE[precision]:g}. Try another version of ONNX Runtime (this is {ort.__version__})."
        )
    latency = _latency(engine, facts, partial(progress, f"timing {role}"))
    return RoleFacts(source_sha256=bundle.graph_sha256(role), max_difference=difference, latency=latency)


def _optimise(source: Path, graph: Path, device: str, threads: int) -> None:
    """Write ONNX Runtime's optimised form of `source` to `graph`."""
    graph.parent.mkdir(parents=True)
    options = session_options(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(graph)
    weights = sum(file.stat().st_size for file in source.parent.iterdir() if file.is_file())
    if weights > EXTERNAL_BYTES:
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{graph.name}.data"
        )
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    open_session(source, device, options)


def _call(facts: ModelFacts, batch: int, past: int, new: int) -> ForwardInputs:
    """A causal call of `new` tokens on `past` cached ones, the head computed for the last rows; seeded tokens."""
    rng = np.random.default_rng(past * 1009 + new)
    return ForwardInputs(
        rng.integers(0, facts.vocabulary, (batch, new)),
        np.broadcast_to(np.arange(past, past + new), (batch, new)).copy(),
        *causal(past, new, batch),
        np.broadcast_to(np.arange(max(0, new - 121), new), (batch, min(new, 121))).copy(),
    )


def _difference(
    source: Path, engine: Engine, facts: ModelFacts, precision: Precision, device: str, threads: int
) -> float:
    """Largest difference of a log-probability between the exported graph, run as it is, and the engine."""
    options = session_options(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    exported = OrtEngine(open_session(source, device, options), facts, precision, device)
    worst = 0.0
    for batch in (1, 3):
        caches = exported.new_cache(batch), engine.new_cache(batch)
        for past, new in ((0, 30), (30, 20)):
            inputs = _call(facts, batch, past, new)
            a, b = exported.forward(inputs, caches[0]), engine.forward(inputs, caches[1])
            worst = max(worst, float(np.abs(a - b).max()))
    return worst


def _latency(engine: Engine, facts: ModelFacts, progress: Callable[[int, int], None]) -> tuple[LatencyPoint, ...]:
    """Median milliseconds of one call over a grid of batch sizes, cached and new tokens within the context."""
    grid = [
        (batch, past, new)
        for batch in BATCHES
        for past in PAST_TOKENS
        for new in NEW_TOKENS
        if past + new <= facts.context and (not past or new <= LATER_TOKENS)
    ]
    points: list[LatencyPoint] = []
    for done, (batch, past, new) in enumerate(grid):
        progress(done, len(grid))
        if points and points[-1].milliseconds > LONGEST_MS and new > points[-1].new:
            continue
        times: list[float] = []
        for _ in range(4):
            cache = engine.new_cache(batch)
            if past:
                engine.forward(_call(facts, batch, 0, past), cache)
            inputs = _call(facts, batch, past, new)
            start = perf_counter()
            engine.forward(inputs, cache)
            times.append(1000 * (perf_counter() - start))
            if sum(times) > LONG_MS:
                break
        points.append(LatencyPoint(batch=batch, past=past, new=new, milliseconds=round(median(times[1:] or times), 4)))
    progress(len(grid), len(grid))
    return tuple(points)
