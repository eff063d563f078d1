"""Engines of the pair on the device: built, opened, and those of which parity has been shown."""

from typing import TYPE_CHECKING

from benchmarks.hardware.kit.libraries import passing, usable
from benchmarks.hardware.kit.parts import NAMES, PARITIES, Job, PassedOver
from benchmarks.hardware.kit.record import read
from benchmarks.hardware.kit.users import other_histories
from specbeam.catalog.errors import SpecBeamError
from specbeam.engines.build import Order, build_engine
from specbeam.engines.bundle.facts import QUANTIZED
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.registry import find_backend, load_engine
from specbeam.runtime import EngineChoice, Recommender, Verification
from specbeam.runtime.options import Batching, Drafting
from specbeam.runtime.types import DrafterKind

if TYPE_CHECKING:
    from specbeam.engines.tensorrt.flavour import Flavour

RTX = "tensorrt-rtx"
BATCH = 8  # requests in a call where nothing else is said
HALF = ("fp16", "bf16")
PRECISIONS = {
    ("torch", "cuda"): ("fp32", *HALF), ("torch", "cpu"): ("fp32", "bf16"),
    ("onnxruntime", "cuda"): ("fp32", *HALF), ("onnxruntime", "cpu"): ("fp32", "fp16"),
    ("tensorrt", "cuda"): ("fp32", *HALF, "int8"), (RTX, "cuda"): (*HALF, "int8-weights"),
    (RTX, "cpu"): (*HALF, "int8-weights"),
}  # fmt: skip


def precisions(job: Job, backend: str) -> tuple[str, ...]:
    """What a backend is measured in. Raises `PassedOver` where it is not here, or does not support the device."""
    usable(job, backend)
    if backend == RTX:
        capability, listed = job.setup.compute_capability, flavour().targets
        if capability is not None and capability not in listed:
            raise PassedOver(
                f"{NAMES[RTX]} does not list GPUs of compute capability {capability}; it lists {', '.join(listed)}"
            )
    if backend != "torch":
        passing(find_backend(backend, device_of(job, backend)).ready)
    return PRECISIONS[backend, job.device]


def flavour() -> "Flavour":
    from specbeam.engines.tensorrt.flavour import FLAVOURS

    return FLAVOURS[RTX]


def targets(precision: str) -> tuple[str, ...]:
    """The compute capabilities that TensorRT for RTX compiles a precision for."""
    found, computed = flavour(), "fp16" if precision in QUANTIZED else precision
    return tuple(one for one in found.targets if computed not in found.lacking.get(one, ()))


def device_of(job: Job, backend: str) -> str:
    """The device of a backend's engines; those of TensorRT for RTX are compiled without it as well."""
    return "cuda" if backend == RTX else job.device


def name_of(job: Job, backend: str, precision: str) -> str:
    return f"{backend}-{device_of(job, backend)}-{precision}"


def build(job: Job, bundle: Bundle, backend: str, precision: str) -> str:
    """Build an engine, unless it is there and opens; returns its name.

    Raises `PassedOver` where this GPU does not compute in the precision.
    """
    name = name_of(job, backend, precision)
    if backend != RTX and name in bundle.engine_names():
        try:
            load_engine(bundle, "target", name, threads=1)
            return name
        except SpecBeamError:
            pass  # of another version, or damaged: in its place comes one of this
    options: dict[str, object] = {}
    if backend != "onnxruntime":
        from specbeam.engines.tensorrt.backend import CallSizes
        from specbeam.engines.tensorrt.build import TrtOptions

        options["sizes"] = CallSizes(max_batch=max(BATCH, *job.sizes.batches, *job.sizes.batch_sizes))
        if backend == RTX:
            if (capability := job.setup.compute_capability) not in (None, *targets(precision)):
                raise PassedOver(f"{NAMES[RTX]} has no {precision} kernels for GPUs of compute capability {capability}")
            options["options"] = TrtOptions(compute_capabilities=targets(precision))
    chosen = find_backend(backend, device_of(job, backend), **options)
    if precision in QUANTIZED:
        quantized(job, bundle, Order.check(bundle, chosen, precision, None, None))
    else:
        build_engine(bundle, backend=chosen, precision=precision, overwrite=True)  # type: ignore[arg-type]
    return name


def quantized(job: Job, bundle: Bundle, order: Order) -> None:
    """Build integers, without the gate: what they do to lists is what parity tells."""
    from specbeam.calib.build import build_int8
    from specbeam.calib.options import Int8Options
    from specbeam.catalog.histories.dataset import Example

    histories = [items for items in other_histories(job, bundle) if len(items) > 1]
    examples = [Example(f"u{i}", tuple(items[:-1]), (items[-1],)) for i, items in enumerate(histories)]
    build_int8(order, examples, Int8Options(calibration_size=job.sizes.calibration, gate=False), overwrite=True)


def proven(job: Job, backend: str | None = None) -> list[str]:
    """Engines whose lists were compared with the CPU's, of one backend or of all.

    Raises `PassedOver` where there is none.
    """
    records = [read(job.out, part) for part in (PARITIES if backend is None else (f"parity-{backend}",))]
    found = [
        str(row["engine"])
        for record in records
        if record is not None and record.setup == job.setup
        for step in record.steps
        if step.status == "done" and step.name.endswith(LISTS)
        for row in step.rows
    ]
    if not found:
        whose = "no engine on the device" if backend is None else f"no engine of {NAMES[backend]} on the device"
        raise PassedOver(f"{whose} has shown its parity with the CPU: see there")
    return list(dict.fromkeys(found))


LISTS = ": lists"  # how the steps of parity end that open an engine


def opened(
    bundle: Bundle,
    engine: str,
    *,
    drafting: Drafting | DrafterKind,
    batch: int = BATCH,
    verification: Verification | None = None,
) -> Recommender:
    """A recommender on an engine of the pair."""
    return Recommender.open(
        bundle, engine=EngineChoice(engine), drafting=drafting, batching=Batching(batch), verification=verification
    )
