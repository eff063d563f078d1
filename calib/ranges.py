"""Ranges of the activations that are to be quantized, from the calls that real searches make."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import HistogramCollector  # type: ignore[import-untyped]

from ..catalog.bounds import DAMAGED, Size
from ..catalog.errors import EngineError, OptionError
from ..catalog.files import Frozen, whole_file
from ..engines.bundle.sealed import to_json
from ..graphs.files import load_graph
from .calls import Arrays, Calls
from .graphs import ENCODERS, graphs_of, within
from .matmuls import activations
from .observe import observer_of
from .quiet import quiet

Estimator = Literal["minmax", "percentile", "entropy"]
Range = tuple[float, float]
Array = NDArray[Any]
T = TypeVar("T")
PERCENTILE = 99.99  # of the values on both sides of zero together that a range covers
BINS = 2048  # of a histogram from -max to max
LARGEST = 1e30  # no activation reaches it, and a scale stays a float32
AGAIN = "Calibrate again: specbeam build-engine BUNDLE --precision int8 --calibration HISTORIES, without --ranges."
LEVELS = 128  # that the entropy method compares a clipped histogram with

Progress = Callable[[int, int], None]  # calls done, calls in all


class Ranges(Frozen, frozen=True):
    """What was measured, on what, and of which graph."""

    source_sha256: str  # `Bundle.graph_sha256` of the graph
    estimator: Estimator
    percentile: float | None  # None: another estimator
    histories: Size
    calls: Size
    seed: int  # what the histories were drawn with
    tensors: dict[str, Range]  # lowest and highest value to represent, by the name of the activation
    channels: dict[str, tuple[float, ...]]  # largest absolute value of each channel [K]; see `smooth`

    def of(self, graph: Path) -> "Ranges":
        """Those of one graph of the role (`graphs_of`), by the names that it knows them by."""
        prefix = within(graph)

        def own(found: dict[str, T]) -> dict[str, T]:
            there = {name: value for name, value in found.items() if name.startswith(ENCODERS) == bool(prefix)}
            return {name.removeprefix(prefix): value for name, value in there.items()}

        return replace(self, tensors=own(self.tensors), channels=own(self.channels))

    def merged(self, graph: Path, own: "Ranges") -> "Ranges":
        """These, and what `own` says of one graph by the names that it knows."""
        tensors, channels = (
            {f"{within(graph)}{name}": value for name, value in found.items()} for found in (own.tensors, own.channels)
        )
        return replace(self, tensors=self.tensors | tensors, channels=self.channels | channels)


def compute_ranges(
    graph: Path,
    calls: Calls,
    estimator: Estimator = "minmax",
    *,
    source_sha256: str,
    percentile: float | None = None,
    threads: int = 1,
    progress: Progress = lambda done, total: None,
) -> Ranges:
    """Ranges of everything that a weight is multiplied with in an exported float32 graph.

    estimator: "minmax" covers all values; "percentile" all but the outermost (by default 0.01 % of them);
    "entropy" clips where the quantized distribution is nearest to the true one (Migacz 2017, "8-bit Inference
    with TensorRT"). The two last need a second pass over the calls, for histograms between known limits. Where the
    graph has an encoder beside it, so is what that multiplies while it reads the prompts.
    """
    if estimator not in get_args(Estimator):
        raise OptionError(f"got the estimator {estimator!r}; expected one of: {', '.join(get_args(Estimator))}.")
    check_percentile(estimator, percentile)
    percentile = (percentile or PERCENTILE) if estimator == "percentile" else None
    found = Ranges(
        source_sha256=source_sha256, estimator=estimator, percentile=percentile, histories=len(calls.searches),
        calls=calls.count, seed=calls.seed, tensors={}, channels={},
    )  # fmt: skip
    passes = 1 if estimator == "minmax" else 2
    told = _Told(progress, passes * (calls.count + len(calls.prompts)))
    for one in graphs_of(graph):
        tensors, channels = _measured(one, calls, found, threads, told)
        found = found.merged(one, replace(found, tensors=tensors, channels=channels))
    return found


def _measured(
    graph: Path, calls: Calls, asked: Ranges, threads: int, told: "_Told"
) -> tuple[dict[str, Range], dict[str, tuple[float, ...]]]:
    """`tensors` and `channels` of one graph, by the estimator that `asked` names."""
    names = activations(load_graph(graph))
    observer = observer_of(graph, names, threads=threads)
    lows, highs = _extremes(told.each(observer.run(calls)), names)
    tensors = {name: (float(lows[name].min()), float(highs[name].max())) for name in names}
    if asked.estimator != "minmax":
        tensors = _clipped(told.each(observer.run(calls)), tensors, asked.percentile)
    return tensors, {name: tuple(np.maximum(-lows[name], highs[name]).tolist()) for name in names}


def check_percentile(estimator: Estimator, percentile: float | None) -> None:
    """Raise `OptionError` for a percentile that is none, or that the estimator does not take."""
    if percentile is not None and (estimator != "percentile" or not 50 < percentile <= 100):
        raise OptionError(
            f"got a percentile of {percentile} for the estimator {estimator}; expected above 50, at most 100, and the "
            "estimator percentile."
        )


class _Told:
    """Tells of every call that is looked at."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def each(self, values: Iterator[Arrays]) -> Iterator[Arrays]:
        for arrays in values:
            self._progress(self._done, self._total)
            self._done += 1
            yield arrays


def _extremes(values: Iterable[Arrays], names: Sequence[str]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Lowest and highest value of each channel [K] by the tensor's name; zero is always among them."""
    lows: dict[str, Array] = dict.fromkeys(names, np.zeros(1, np.float32))
    highs = dict(lows)
    for arrays in values:
        for name, array in zip(names, arrays, strict=True):
            rows = array.reshape(-1, array.shape[-1])
            lows[name] = np.minimum(lows[name], rows.min(axis=0))
            highs[name] = np.maximum(highs[name], rows.max(axis=0))
    broken = [name for name in names if not np.isfinite(lows[name] + highs[name]).all()]
    if broken:
        raise EngineError(
            f"The graph computes numbers that are not finite ({', '.join(broken[:3])}): it cannot be quantized. "
            "Check the checkpoint, or export it in fp32."
        )
    return lows, highs


def _clipped(values: Iterable[Arrays], extremes: dict[str, Range], percentile: float | None) -> dict[str, Range]:
    """Ranges inside the extremes: by percentile, or by entropy where that is None."""
    limits = {name: max(-low, high) for name, (low, high) in extremes.items()}
    counts: dict[str, NDArray[np.int64]] = {name: np.zeros(BINS, np.int64) for name in extremes}
    for arrays in values:
        for name, array in zip(extremes, arrays, strict=True):
            counts[name] += np.histogram(array, BINS, range=(-limits[name], limits[name]))[0]
    # Its own way of collecting begins with the first batch's limits, and a few small values there cost it hours.
    kind = "entropy" if percentile is None else "percentile"
    collector = HistogramCollector(kind, False, BINS, LEVELS, percentile, "same")
    for name, (low, high) in extremes.items():
        if limits[name] > 0:
            edges = np.linspace(-limits[name], limits[name], BINS + 1, dtype=np.float32)
            collector.histogram_dict[name] = (counts[name], edges, np.float32(low), np.float32(high), limits[name])
    with quiet():
        found = collector.compute_collection_result() if collector.histogram_dict else {}
    return extremes | {name: (min(float(low), 0.0), max(float(high), 0.0)) for name, (low, high, *_) in found.items()}


def save_ranges(ranges: Ranges, path: Path) -> None:
    """Write ranges as JSON: the same ranges are the same bytes."""
    with whole_file(path, replace=False) as file:
        file.write(to_json(ranges))


def load_ranges(path: Path, source_sha256: str) -> Ranges:
    """Read ranges, measured on the graph of that hash (`Bundle.graph_sha256`); raises `EngineError` for others."""
    try:
        ranges = msgspec.json.decode(path.read_bytes(), type=Ranges)
    except (OSError, *DAMAGED) as error:
        raise EngineError(f"{path} holds no calibration ranges: {error}. {AGAIN}") from error
    if not _sound(ranges):
        raise EngineError(
            f"{path} is damaged: every activation must have finite limits around 0, no wider than its channels' "
            f"maxima, measured on some histories. {AGAIN}"
        )
    if ranges.source_sha256 != source_sha256:
        raise EngineError(
            f"{path} was calibrated on another graph ({ranges.source_sha256[:12]}) than the one to be quantized "
            f"({source_sha256[:12]}). {AGAIN}"
        )
    return ranges


def _sound(ranges: Ranges) -> bool:
    """Whether ranges could have been measured."""
    if ranges.tensors.keys() != ranges.channels.keys() or min(ranges.histories, ranges.calls) < 1 or ranges.seed < 0:
        return False
    for name, (low, high) in ranges.tensors.items():
        largest = max(ranges.channels[name], default=0.0)
        if min(ranges.channels[name], default=0.0) < 0 or largest > LARGEST or not low <= 0 <= high:
            return False
        if max(-low, high) > 1.01 * largest or (largest > 0 and low == high):  # a histogram's bin more, at most
            return False
    return True
