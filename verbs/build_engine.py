"""A bundle's engines: build-engine."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import PathType, bundle_argument, flags, format_option, threads_option, together
from .output import Bars, claim_outputs
from .overwrite import tell_losses
from .plan_options import backend_of, tensorrt_options
from .values import collected

if TYPE_CHECKING:
    from ..engines.build import Order
    from ..engines.bundle.model import ModelBundle

BACKENDS = click.Choice(["onnxruntime", "tensorrt", "tensorrt-rtx"])
ENGINE_PRECISIONS = click.Choice(["fp32", "fp16", "bf16", "int8", "int8-weights"])
METHODS = click.Choice(["auto", "static", "dynamic", "weight8", "weight4"])
ESTIMATORS = click.Choice(["minmax", "percentile", "entropy"])
INT8 = (
    "calibration", "calibration_size", "method", "estimator", "percentile", "smooth", "no_smooth", "keep", "ranges",
    "gate", "gate_size", "seed", "format", "item_base",
)  # fmt: skip
ACTIVATIONS = ("estimator", "percentile", "smooth", "no_smooth", "ranges")  # those of INT8 that int8-weights has not

CALIBRATION_HELP = (
    "int8: a history file, or a dataset's folder (all its splits); several may be given. Some users are calibrated on, "
    "rankings are compared on the others."
)
METHOD_HELP = (
    "int8: static (calibrated), dynamic (ranges taken while running), weight8, weight4 (weights only); auto: the "
    "fastest here that passes the gate, dynamic only where no other does, because its scores depend on who shares a "
    "call. TensorRT takes static alone; int8-weights is weight8 and weight4 alone, in this order."
)
KEEP_HELP = (
    "int8: leave a part of the target in floating point: head, first, last, a layer such as layers.3, or of an encoder "
    "encoder.layers.3 or encoder.read; several may be given. Without it, the most sensitive quarter is left so where "
    "nothing else passes the gate."
)
GATE_HELP = (
    "int8: refuse a target whose lists overlap with the original's by less than 90 % at 20, or whose NDCG@10 may have "
    "fallen by more than 2 %. --no-gate: neither compare nor refuse."
)
FINISH_HELP = (
    "Compare and time an engine that was built without a GPU, on this machine's, and build nothing; what is found is "
    "kept beside it, for this kind of GPU. Exit status 1: it cannot run here, or computes something else."
)
TIMING_HELP = (
    "How long the calls of each model may be timed, few sizes of them first; those not reached are interpolated from "
    "the others, which engine.json says of each. Default: 60, in which small models time them all."
)
DEFAULT_HELP = (
    "Make it the engine that serves where --engine is left out; by itself the first one built is. One that exists is "
    "not built again for that."
)


int8_options = together(
    click.option("--calibration", multiple=True, type=PathType, metavar="HISTORIES", help=CALIBRATION_HELP),
    click.option("--calibration-size", type=click.IntRange(1), help="int8: users to calibrate on. Default: 200."),
    click.option("--method", type=METHODS, help=METHOD_HELP + " Default: auto."),
    click.option("--estimator", type=ESTIMATORS, help="int8: how static ranges are found. Default: percentile."),
    click.option("--percentile", type=float, help="int8: of the values that a range covers. Default: 99.99."),
    click.option("--smooth", type=float, metavar="ALPHA", help="int8: strength of SmoothQuant. Default: 0.8."),
    click.option("--no-smooth", is_flag=True, default=None, help="int8: quantize weights as they are."),
    click.option("--keep", multiple=True, metavar="PART", help=KEEP_HELP),
    click.option("--ranges", type=PathType, metavar="DIR", help="int8: an engine's folder whose ranges to use again."),
    click.option("--gate/--no-gate", default=None, help=GATE_HELP),
    click.option("--gate-size", type=click.IntRange(1), help="int8: most requests to compare on. Default: 20000."),
    click.option("--seed", type=click.IntRange(0), help="int8: of the draw of users. Default: 0."),
)


@dataclass(frozen=True)
class Asked:
    """What is built, and how."""

    backend: str
    device: str | None
    precision: Any
    draft_precision: Any
    threads: int | None
    timing_seconds: float | None

    @property
    def timing(self) -> dict[str, float]:
        """As it is passed on: by what it is called, where it was said."""
        return {} if self.timing_seconds is None else {"timing_seconds": self.timing_seconds}


@click.command("build-engine")
@bundle_argument
@click.option("--backend", default="onnxruntime", show_default=True, type=BACKENDS)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cpu; cuda for tensorrt and tensorrt-rtx.")
@click.option("--precision", type=ENGINE_PRECISIONS, help="Default: the bundle's. fp32 graphs are converted.")
@click.option("--draft-precision", type=ENGINE_PRECISIONS, help="Default: as --precision.")
@int8_options
@tensorrt_options
@format_option
@click.option("--item-base", type=int, help="First item's number in AtSpeed files. Default: 0; 1 in folders.")
@threads_option
@click.option("--timing-seconds", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help=TIMING_HELP)
@click.option("--default", is_flag=True, help=DEFAULT_HELP)
@click.option("--overwrite", is_flag=True, help="Replace an existing engine.")
@click.option("--finish", metavar="ENGINE", help=FINISH_HELP)
@collected("asked", Asked)
def build_engine(
    bundle: Path, asked: Asked, default: bool, overwrite: bool, finish: str | None, **options: Any
) -> None:
    """Make a bundle's graphs ready for this machine, check them and measure their latency.

    int8 is calibrated on the calls of real searches, tried in the ways that the backend offers, and kept only if
    the target still ranks as it did (docs/engines.md).

    \b
    Examples:
      specbeam build-engine bundle
      specbeam build-engine bundle --precision int8 --calibration histories.jsonl
      specbeam build-engine bundle --precision int8 --default  # is built: now it serves where none is named
      specbeam build-engine bundle --device cuda --precision fp16
      specbeam build-engine bundle --backend tensorrt --precision fp16 --max-batch 16 --timing-cache t.cache
      specbeam build-engine bundle --backend tensorrt-rtx --precision fp16 --compute-capability 8.6,8.9  # no GPU needed
      specbeam build-engine bundle --finish tensorrt-rtx-cuda-fp16  # where the GPU is
    """
    from ..engines.build import Order
    from ..engines.bundle.default import found_default, set_default
    from ..engines.bundle.facts import ENGINE_FACTS
    from ..engines.bundle.inspect import describe_choice
    from ..engines.bundle.open import open_bundle
    from ..engines.bundle.texts import TextBundle

    options = {name: value for name, value in options.items() if value not in (None, ())}
    if finish is not None:
        _only_finish(asked, options, default, overwrite)
        _finish(open_bundle(bundle), finish, asked.threads, asked.timing)
        return
    opened = open_bundle(bundle)
    backend = backend_of(asked.backend, asked.device, options)
    order = Order.check(opened, backend, asked.precision, asked.draft_precision, asked.threads, **asked.timing)
    before = found_default(opened)
    if default and not overwrite and order.name in opened.engine_names():
        set_default(opened, order.name)
        click.echo(f"{order.name} is the default engine of {bundle} from now on (until now: {before or 'none'}).")
        return
    claim_outputs(order.folder)
    tell_losses(order.folder, ENGINE_FACTS, overwrite=overwrite)
    with Bars() as bars:
        folder = _build(order, options, default, overwrite, bars)
    click.echo(describe_choice(folder.name, opened.engine_facts(folder.name)))
    measured = opened.is_measured(folder.name) or _finished(opened, folder.name, order.threads, asked.timing)
    if measured and before not in (None, folder.name):
        _compare(opened, folder.name, before, order.threads)
    if not measured:
        click.echo(f"Built {folder}. Next, where there is a GPU for it: {opened.finishing(folder.name)}")
        return
    text = isinstance(opened, TextBundle)
    named = shlex.quote(str(bundle))
    run = f"generate {named} PROMPTS.jsonl" if text else f"infer {named} HISTORIES"
    click.echo(
        f"Built {folder}. Next: specbeam {run} --engine {folder.name} --output {'out' if text else 'recs'}.jsonl"
    )


def _only_finish(asked: Asked, options: dict[str, Any], default: bool, overwrite: bool) -> None:
    """Raise `OptionError` where more than finishing an engine was asked for."""
    from ..catalog.errors import OptionError

    named = {"device": asked.device, "precision": asked.precision, "draft_precision": asked.draft_precision}
    given = [
        *(name for name, value in (named | {"default": default, "overwrite": overwrite}).items() if value),
        *options,
    ]
    if given:
        raise OptionError(f"--finish builds nothing; got {flags(given)} as well. Leave that out.")


def _finish(bundle: "ModelBundle", name: str, threads: int | None, timing: dict[str, float]) -> None:
    """Compare and time what was built without a GPU."""
    from ..engines.bundle.inspect import describe_engine
    from ..engines.finish import finish_engine

    with Bars() as bars:
        path = finish_engine(bundle, name, threads=threads, progress=bars, **timing)
    click.echo(describe_engine(bundle.path, name))
    click.echo(f"Kept in {path}.")


def _finished(bundle: "ModelBundle", name: str, threads: int, timing: dict[str, float]) -> bool:
    """Finish an engine where the machine that built it has a GPU; otherwise say that it is not measured yet."""
    from ..catalog.errors import EngineError, RefusedError, SpecBeamError
    from ..engines.cuda import Device

    try:
        Device().close()
    except EngineError:
        click.echo("Not compared with the exported graph, and not timed yet: there is no GPU here.")
        return False
    try:
        _finish(bundle, name, threads, timing)
    except RefusedError:
        raise
    except SpecBeamError as error:  # it may be for other GPUs than this one
        click.echo(f"Not compared with the exported graph, and not timed yet: {error}")
        return False
    return True


def _compare(bundle: "ModelBundle", name: str, reference: str, threads: int) -> None:
    """Say how fast an engine is beside the one that was the default until now, and which one is."""
    from ..catalog.errors import SpecBeamError
    from ..engines.bundle.default import default_engine
    from ..engines.side_by_side import beside

    try:
        found = beside(bundle, name, reference, threads=threads)
        told = "no call was measured for both" if found is None else found.described()
    except SpecBeamError as error:  # what was built is there all the same
        told = str(error)
    click.echo(told if told.startswith(name) else f"Not compared with {reference}: {told}")
    if default_engine(bundle) == name:
        click.echo(f"Without --engine, {name} serves from now on, in place of {reference}.")
    else:
        click.echo(f"Without --engine, {reference} goes on serving. To change that: {bundle.build(name)} --default")


def _build(order: "Order", options: dict[str, Any], default: bool, overwrite: bool, bars: Bars) -> Path:
    from ..catalog.errors import OptionError
    from ..engines.build import needs_histories, write_engine
    from ..engines.bundle.facts import QUANTIZED

    own = {key: options[key] for key in INT8 if key in options}
    quantized = [precision for precision in order.precisions.values() if precision in QUANTIZED]
    if not quantized:
        if own:
            raise OptionError(f"{flags(own)}: for --precision int8 only. Leave that out, or build an int8 engine.")
        return write_engine(order, default=default, overwrite=overwrite, progress=bars)
    if "calibration" not in own:
        raise OptionError(needs_histories(quantized[0]))
    told = [key for key in ACTIVATIONS if key in own]
    if told and "int8" not in quantized:
        raise OptionError(f"{flags(told)}: for --precision int8 only; int8-weights leaves activations as they are.")
    from ..calib.build import build_int8
    from ..calib.data import read_examples
    from ..calib.options import Int8Options
    from ..engines.bundle.items import of_items

    bundle = of_items(order.bundle, "int8 engine")
    paths, kind, base = own.pop("calibration"), own.pop("format", None), own.pop("item_base", None)
    examples, unusable = read_examples(paths, bundle.catalog(), format=kind, item_base=base)
    if unusable:
        click.echo(f"{unusable} requests cannot be calibrated on and are left out (infer tells why)", err=True)
    ranges = own.pop("ranges", None)
    told = [key for key in ("estimator", "percentile", "calibration_size", "seed") if key in own]
    if ranges is not None and told:
        raise OptionError(f"{flags(told)}: ranges of an earlier calibration have theirs. Leave out these or --ranges.")
    if own.pop("no_smooth", False):
        if "smooth" in own:
            raise OptionError(f"got a smoothing of {own['smooth']} and --no-smooth as well. Leave one of the two out.")
        own["smooth"] = None
    return build_int8(
        order, examples, Int8Options(**own), ranges=ranges, default=default, overwrite=overwrite, progress=bars
    )
