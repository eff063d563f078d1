"""build-engine: a bundle's graphs made ready for one backend, device and precision, checked, and timed."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
from msgspec.structs import replace

from ..catalog import checks
from ..catalog.errors import EngineError, OptionError, RefusedError
from ..catalog.files import check_replaceable, whole_directory, whole_file
from ..catalog.temporaries import temporary_directory
from .backend import Backend, GraphToBuild, Progress
from .base import Engine
from .bundle.checksums import file_facts
from .bundle.default import keep_default, set_default
from .bundle.facts import (
    CONSTRAINED,
    ENCODER,
    ENGINE_FACTS,
    ENGINE_SCHEMA,
    QUANTIZED,
    Drafting,
    EngineFacts,
    EnginePrecision,
    Gate,
    Limits,
    Quantization,
    Role,
    RoleFacts,
)
from .bundle.measured import Measurement
from .bundle.model import ModelBundle
from .bundle.names import engine_name
from .bundle.open import open_bundle
from .bundle.sealed import sealed
from .compare import Answer, Refusal, answers, cases, difference, over_columns
from .latency import TIMING_SECONDS, measure_latency
from .registry import chosen_threads, find_backend, whole_library

TOLERANCE = {"fp32": 1e-3, "fp16": 0.1, "bf16": 0.5}  # largest difference of a log-probability to the exported graph
LARGEST = float(np.finfo(np.float64).max)  # of what is quantized, whose rankings are compared instead: any number


@dataclass(frozen=True)
class QuantizedGraph:
    """A graph of the contract whose products are of integers, to build from in place of the exported one."""

    path: Path
    quantization: Quantization


@dataclass(frozen=True)
class Order:
    """An engine that was asked for, checked against its bundle and against this machine's libraries."""

    bundle: ModelBundle
    backend: Backend
    precisions: dict[Role, EnginePrecision]
    threads: int
    timing_seconds: float = TIMING_SECONDS  # as of `measure_latency`

    @classmethod
    def check(
        cls,
        bundle: ModelBundle,
        backend: Backend,
        precision: EnginePrecision | None,
        draft_precision: EnginePrecision | None,
        threads: int | None,
        timing_seconds: float = TIMING_SECONDS,
    ) -> "Order":
        """Settle what is left open. Raises `EngineError` for precisions that cannot be had."""
        checks.instance(backend, "backend", Backend, "such as find_backend('onnxruntime')")
        for name, asked in (("precision", precision), ("draft_precision", draft_precision)):
            if asked is not None:
                checks.choice(asked, name, get_args(EnginePrecision))
        threads, exported = chosen_threads(threads), bundle.manifest.precision
        timing_seconds = checks.seconds(timing_seconds, "timing_seconds")
        target = precision or exported
        precisions: dict[Role, EnginePrecision] = {"target": target}
        if bundle.manifest.draft is not None:
            precisions["draft"] = draft_precision or target
        elif draft_precision is not None:
            raise OptionError(f"{bundle.path} has no draft model: leave the draft's precision out.")
        for wanted in precisions.values():
            backend.check(wanted)
            if exported not in ("fp32", wanted):
                raise EngineError(
                    f"The graphs of {bundle.path} are {exported}, asked for {wanted}: only fp32 graphs are converted. "
                    "Export the checkpoints again with: specbeam export ... --precision fp32"
                )
        backend.ready()
        return cls(bundle, backend, precisions, threads, timing_seconds)

    @property
    def name(self) -> str:
        """The engine's name: its folder in `engines/`."""
        draft = self.precisions.get("draft")
        return engine_name(self.backend.name, self.backend.device, self.precisions["target"], draft)

    @property
    def folder(self) -> Path:
        """Where the engine will lie."""
        return self.bundle.path / "engines" / self.name


def build_engine(
    bundle: str | Path | ModelBundle,
    *,
    backend: Backend | None = None,
    precision: EnginePrecision | None = None,
    draft_precision: EnginePrecision | None = None,
    threads: int | None = None,
    timing_seconds: float = TIMING_SECONDS,
    default: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Path:
    """Build `engines/<backend>-<device>-<precision>` of a bundle from its exported graphs; returns its folder.

    backend: default ONNX Runtime on the CPU. precision: default the bundle's; fp32 graphs are converted
    where asked. default: make it the bundle's default engine, as the first one built is. What is built is compared with
    the exported graph, on random tokens and on prompts of the bundle's own, and timed against the number of tokens.
    timing_seconds: how long that may take of each graph; calls that were not reached are interpolated. int8 and
    int8-weights need histories: `calib.build.build_int8`. Raises `EngineError` where this machine cannot build or run
    it, and where the two disagree; no engine is left behind then, an earlier one stays.
    """
    bundle = bundle if isinstance(bundle, ModelBundle) else open_bundle(bundle)
    order = Order.check(
        bundle, find_backend("onnxruntime") if backend is None else backend, precision, draft_precision, threads,
        timing_seconds,
    )  # fmt: skip
    for precision in order.precisions.values():
        if precision in QUANTIZED:
            raise OptionError(needs_histories(precision))
    return write_engine(order, default=default, overwrite=overwrite, progress=progress)


def needs_histories(precision: EnginePrecision) -> str:
    """What to say where a quantized engine is asked for without any."""
    uses = "to calibrate on and to compare rankings on" if precision == "int8" else "to compare rankings on"
    return f"{precision} needs histories {uses}: --calibration HISTORIES."


def write_engine(
    order: Order,
    *,
    quantized: Mapping[Role, QuantizedGraph] | None = None,
    gate: Gate | None = None,
    drafting: Drafting | None = None,
    extra: Sequence[Path] = (),
    default: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Path:
    """Build what was ordered.

    quantized: the graphs of quantized roles; gate, drafting: what was found of them; extra: files to keep with it;
    default: whether it takes the place of the bundle's default engine.
    """
    default, overwrite = checks.flag(default, "default"), checks.flag(overwrite, "overwrite")
    check_replaceable(order.folder, kind=ENGINE_FACTS, replace=overwrite)
    order.folder.parent.mkdir(exist_ok=True)
    keep_default(order.bundle)
    with (
        whole_directory(order.folder, kind=ENGINE_FACTS, replace=overwrite) as folder,
        temporary_directory(folder) as scratch,
    ):
        roles: dict[Role, RoleFacts] = {
            role: _build_role(order, role, (quantized or {}).get(role), folder, scratch, progress)
            for role in get_args(Role)
            if role in order.precisions
        }
        for kept in extra:
            shutil.copy(kept, folder)
        progress("hashing the engine's files", 0, 1)
        facts = EngineFacts(
            schema_version=ENGINE_SCHEMA, backend=order.backend.name, device=order.backend.device,
            precision=order.precisions["target"], threads=order.threads, versions=order.backend.versions(),
            roles=roles, files=file_facts(folder), gate=gate, drafting=drafting,
        )  # fmt: skip
        with whole_file(folder / ENGINE_FACTS, replace=False) as file:
            file.write(sealed(facts))
    if default:
        set_default(order.bundle, order.name)
    keep_default(order.bundle)
    return order.folder


def _build_role(
    order: Order, role: Role, quantized: QuantizedGraph | None, folder: Path, scratch: Path, progress: Progress
) -> RoleFacts:
    """Build one graph's engine in `folder`; check and time it."""
    bundle, backend, precision = order.bundle, order.backend, order.precisions[role]
    progress(f"reading {role}", 0, 1)
    exported = bundle.graph(role)
    cache = backend.cache(precision, bundle.manifest.precision)
    source = quantized.path if quantized else exported
    (folder / role).mkdir()
    plan = backend.build(
        GraphToBuild(bundle, role, precision, source, cache, folder / role, scratch, order.threads), progress
    )  # fmt: skip
    facts = RoleFacts(
        precision=precision, cache=cache, source_sha256=bundle.graph_sha256(role), max_difference=None, latency=(),
        quantization=quantized.quantization if quantized else None, tensorrt=plan,
    )  # fmt: skip
    if not backend.runs_here:
        return facts
    found = measure(order, role, folder / role, facts, scratch, progress)
    return replace(facts, max_difference=found.max_difference, latency=found.latency)


def measure(
    order: Order, role: Role, folder: Path, facts: RoleFacts, scratch: Path, progress: Progress,
    keep: Callable[[Engine], object] = lambda engine: None, rebuild: str | None = None,
) -> Measurement:  # fmt: skip
    """Compare what was built in `folder` with the exported graph, and time its calls, on this machine.

    keep: gets the engine that was timed; rebuild: the command that errors name. Raises `RefusedError` where the two
    differ by too much, `EngineError` where it cannot be opened here.
    """
    bundle, backend = order.bundle, order.backend
    limits = facts.tensorrt.limits if facts.tensorrt is not None else backend.limits(bundle)
    narrow = (folder / CONSTRAINED).is_file()
    served = narrow and bundle.manifest.scoring == "constrained"
    said = _said(order, role, scratch, limits, progress)
    largest, again, engine = 0.0, rebuild or bundle.rebuild(order.name), None
    for catalog_head in sorted({False, narrow}, key=served.__eq__):  # what is timed comes last
        progress(f"comparing {role}", 0, len(said))
        engine = None  # one set of weights at a time
        engine = backend.load(bundle, role, folder, facts, order.threads, again, catalog_head=catalog_head)
        expected = over_columns(said) if catalog_head else said
        largest = max(_compared(order, role, expected, engine, progress), largest)
    assert engine is not None
    timing = partial(progress, f"timing {role}")
    latency = measure_latency(engine, bundle.facts(role), timing, limits, order.timing_seconds)
    keep(engine)
    return Measurement(max_difference=largest, latency=latency)


def _said(order: Order, role: Role, scratch: Path, limits: Limits | None, progress: Progress) -> list[Answer]:
    """What the exported graph says, which is closed again: weights may be all that a machine holds once."""
    bundle, what = order.bundle, f"running the exported {role}"
    asked = list(cases(bundle.facts(role), bundle.samples(), limits))
    progress(what, 0, len(asked))
    said = list[Answer]()
    refuse = Refusal(bundle, role, order.precisions[role])
    for answer in answers(exported_engine(bundle, role, scratch, order.threads), asked, refuse):
        said.append(answer)
        progress(what, len(said), len(asked))
    return said


def _compared(order: Order, role: Role, said: Sequence[Answer], engine: Engine, progress: Progress) -> float:
    """The largest difference of a log-probability to the exported graph; raises `EngineError` where it is too large."""
    bundle, backend, precision = order.bundle, order.backend, order.precisions[role]
    worst = 0.0
    for done, answer in enumerate(said, 1):
        worst = max(worst, difference([answer], engine, Refusal(bundle, role, precision)))
        progress(f"comparing {role}", done, len(said))
    if not worst <= TOLERANCE.get(precision, LARGEST):
        versions = ", ".join(f"{library} {version}" for library, version in backend.versions().items())
        raise RefusedError(
            f"The {role}, built in {precision}, differs from {bundle.graph(role)} by {worst:.2g} in a log-probability, "
            f"allowed is {TOLERANCE.get(precision, LARGEST):.2g}. Try another precision, or another version (this is "
            f"{versions})."
        )
    return worst


def exported_engine(bundle: ModelBundle, role: Role, scratch: Path, threads: int) -> Engine:
    """The exported graph as it is, on ONNX Runtime's CPU provider (bf16, which that lacks, in float32)."""
    with whole_library("onnxruntime"):
        from .onnxruntime.cpu import load_ort_engine

    graph, precision = bundle.graph(role), bundle.manifest.precision
    if precision == "bf16":
        from ..graphs.lift import lift_graph

        lifted = scratch / f"{role}-lifted" / graph.name
        lifted.parent.mkdir(exist_ok=True)
        for part in (graph, graph.with_name(ENCODER)):
            if part.is_file():
                lift_graph(part, lifted.with_name(part.name))
        graph, precision = lifted, "fp32"
    return load_ort_engine(
        graph, bundle.facts(role), device="cpu", precision=precision, threads=threads, columns=bundle.manifest.columns,
        packed=False,
    )  # fmt: skip
