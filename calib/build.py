"""A quantized engine: calibrated on real searches, chosen by measurement, and gated on ranking quality."""

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from ..catalog.checks import instance, listed, path
from ..catalog.disk import told_if_full
from ..catalog.errors import HistoryError
from ..catalog.files import check_replaceable
from ..catalog.histories.dataset import Example
from ..catalog.temporaries import temporary_directory
from ..engines.backend import Progress
from ..engines.build import Order, QuantizedGraph, write_engine
from ..engines.bundle.facts import ENGINE_FACTS, QUANTIZED, Role
from .data import split
from .int8 import Int8Build, ranges_file
from .options import Int8Options, check_meaning
from .ranges import load_ranges


def build_int8(
    order: Order,
    examples: Sequence[Example],
    options: Int8Options | None = None,
    *,
    ranges: Path | None = None,
    default: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Path:
    """Build an engine of which some roles are int8, or have int8-weights; returns its folder.

    examples: histories with what came next (`data.read_examples`); some are calibrated on, the target's rankings
    are compared on the others. ranges: a folder with an earlier calibration's (an engine's has them): of the same
    histories, the same users are drawn again, so that none of them is compared on. default: as of `write_engine`.
    Raises `EngineError` where the gate is not passed, or this machine cannot build it; an earlier engine stays then.
    """
    options = Int8Options() if options is None else options
    instance(options, "options", Int8Options, "such as Int8Options()")
    ranges = None if ranges is None else path(ranges, "ranges")
    check_meaning(order, options, ranges)
    examples = listed(examples, "examples", "examples")
    check_replaceable(order.folder, kind=ENGINE_FACTS, replace=overwrite)
    if ranges is not None:  # who was calibrated on must not be compared on
        role = next(role for role, precision in order.precisions.items() if precision == "int8")
        earlier = load_ranges(ranges / ranges_file(role), order.bundle.graph_sha256(role))
        options = replace(
            options, calibration_size=earlier.histories, seed=earlier.seed, estimator=earlier.estimator,
            percentile=earlier.percentile,
        )  # fmt: skip
    data = split(examples, options.calibration_size, options.gate_size, options.seed)
    if options.gate and not data.gate:
        raise HistoryError(
            f"got {len(examples)} usable requests, all of users to calibrate on; expected others as well, to compare "
            "rankings on. Give the histories of more users."
        )
    order.folder.parent.mkdir(exist_ok=True)
    with told_if_full(order.folder), temporary_directory(order.folder) as scratch:
        build = Int8Build(order, options, data, ranges, scratch, progress)
        build.check()
        build.record()
        quantized: dict[Role, QuantizedGraph] = {}
        gate = drafting = None
        target = build.floats["target"]
        if order.precisions["target"] in QUANTIZED:
            quantized["target"], gate, target = build.target()
        if order.precisions.get("draft") in QUANTIZED:
            quantized["draft"], drafting = build.draft(target)
        build.floats.clear()
        del target
        return write_engine(
            order, quantized=quantized, gate=gate, drafting=drafting, default=default, overwrite=overwrite,
            progress=progress, extra=sorted(Path(scratch).glob("*-ranges.json")),
        )  # fmt: skip
