"""Ways of quantizing a graph, tried on this machine: how fast they are, and how far from the original."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ..catalog.errors import EngineError
from ..catalog.finite import finite
from ..engines.backend import WeightForm
from ..engines.base import Engine, Int64
from ..engines.build import QuantizedGraph
from ..engines.bundle.facts import ModelFacts, Precision, Quantization, Role, Trial
from ..engines.bundle.items import Bundle
from ..engines.cache import KVCache
from ..engines.onnxruntime.backend import optimise
from ..engines.onnxruntime.cpu import load_ort_engine
from ..engines.prepare import prepare_graph
from ..graphs.files import load_graph
from .calls import Calls, begun, replay
from .graphs import graphs_of
from .quantize import BITS, Method, quantize
from .ranges import Ranges
from .sensitivity import REMEDY, exclusions, mean_divergence

SEARCHES = 24  # recorded searches that a way is timed on
ROUNDS = 3

Rows = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Float:
    """One role's float32 graph, and what it says to some recorded calls."""

    bundle: Bundle
    role: Role
    graph: Path  # in the form that the quantizers take: the exported one, or its smoothed copy
    calls: Calls
    logprobs: Rows  # of `calls`
    threads: int
    symmetric: bool  # static activations without zero points, as TensorRT takes them
    weights: WeightForm
    cache: Precision  # the float type between the integers, and of keys and values

    @property
    def facts(self) -> ModelFacts:
        """Of the model."""
        return self.bundle.facts(self.role)


@dataclass(frozen=True)
class Candidate:
    """A quantized graph that was tried."""

    method: Method
    graph: QuantizedGraph
    optimised: Path  # as ONNX Runtime's CPU provider runs it
    trial: Trial

    @property
    def milliseconds(self) -> float:
        """Of one call of each kind."""
        return sum(self.trial.milliseconds.values())

    def open(self, of: "Float") -> Engine:
        """Load it."""
        return load_ort_engine(self.optimised, of.facts, device="cpu", precision=of.cache, threads=of.threads)


def load_optimised(
    graph: Path, facts: ModelFacts, folder: Path, threads: int, cache: Precision = "fp32", *, folded: bool = False
) -> tuple[Path, Engine]:
    """A float32 graph, or one with integer products, as ONNX Runtime's CPU provider runs it fastest.

    cache: what else than integers is computed in; half precision is slow here, but rounds as a GPU does. folded: with
    integer weights turned into floating point, and multiplied as such (`optimise`). The same of an encoder beside it.
    """
    path = folder / graph.name
    for one in graphs_of(graph):
        prepared = prepare_graph(one, folder / "prepared" / one.name, exported="fp32", wanted=cache)
        optimise(prepared, folder / one.name, "cpu", threads, folded=folded)
    return path, load_ort_engine(path, facts, device="cpu", precision=cache, threads=threads)


def try_method(
    of: Float, method: Method, scratch: Path, *, ranges: Ranges | None, smooth: float | None, kept: Sequence[str]
) -> Candidate:
    """Quantize one way, leaving the parts `kept` in floating point; load, time and compare."""
    name = f"{of.role}-{method}" + "".join(f"-{part}" for part in kept)
    folder = scratch / name / "quantized"
    folder.mkdir(parents=True)
    used = ranges if method == "static" else None
    for one in graphs_of(of.graph):
        exclude = exclusions(load_graph(one), kept) if kept else ()
        own = used.of(one) if used else None
        quantize(
            one, folder / one.name, method, ranges=own, exclude=exclude, symmetric=of.symmetric, weights=of.weights
        )
    path = folder / of.graph.name
    folded = of.weights == "dequantize" and method in BITS  # a GPU's kernels do not round activations
    optimised, engine = load_optimised(
        path, of.facts, scratch / name / "optimised", of.threads, of.cache, folded=folded
    )
    divergence = mean_divergence(of.logprobs, logprobs_of(engine, of.calls))
    finite(divergence, f"The divergence of the {of.role}, quantized by {method},", REMEDY, EngineError)
    here = of.cache == "fp32"  # half precision stands in for a GPU
    times = timed(engine, of.role, of.calls) if here else {}
    trial = Trial(method=method, kept=tuple(kept), milliseconds=times, divergence=divergence)
    quantization = Quantization(
        method=method, ranges=used.estimator if used else None, smooth=smooth, kept=tuple(kept), trials=(trial,)
    )
    return Candidate(method, QuantizedGraph(path, quantization), optimised, trial)


def timed(engine: Engine, role: Role, calls: Calls) -> dict[str, float]:
    """Median milliseconds of the first call of a search, its prompt's reading included, and of those behind it."""
    first, later = ("prefill+verify", "verify") if role == "target" else ("prefill", "draft step")
    times: dict[str, list[float]] = {}
    read = 0.0  # milliseconds that the search's prompt took

    def begin(prompt: Int64 | None) -> KVCache:
        nonlocal read
        start = perf_counter()
        cache = begun(engine, prompt)
        read = 0.0 if prompt is None else 1000 * (perf_counter() - start)
        return cache

    for _ in range(ROUNDS):
        for inputs, cache, number in calls.walk(begin):
            start = perf_counter()
            engine.forward(inputs, cache)
            elapsed = 1000 * (perf_counter() - start) + (0.0 if number else read)
            if number is not None:
                times.setdefault(later if number else first, []).append(elapsed)
    return {name: round(median(of_kind), 4) for name, of_kind in times.items()}


def logprobs_of(engine: Engine, calls: Calls) -> Rows:
    return [rows.copy() for rows in replay(engine, calls)]
