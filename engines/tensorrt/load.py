"""Plans opened on the current GPU, as engines."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ...catalog.errors import EngineError
from ..base import Engine
from ..bundle.facts import ModelFacts, Precision, TensorRTFacts
from ..cuda import Device
from .caches import Memory
from .encoder_decoder import TrtEncoderDecoder
from .engine import Plan, TrtEngine
from .flavour import TENSORRT, Flavour
from .just_in_time import RuntimeCache, check_valid
from .layers import ENCODER_PLAN
from .library import Messages, check_fits, import_tensorrt, new_logger, new_tool
from .profiles import READING, Profile

if TYPE_CHECKING:
    import tensorrt as trt  # type: ignore[import-not-found,unused-ignore]


def load_trt_engine(
    plan: Path,
    facts: ModelFacts,
    trt_facts: TensorRTFacts,
    flavour: Flavour = TENSORRT,
    *,
    columns: int,
    cache_precision: Precision,
    rebuild: str,
    kernels: bytes | None = None,
) -> Engine:
    """Open a plan on the current GPU; a version-compatible one with TensorRT's lean runtime where only that is here.

    columns: C; cache_precision: of keys and values; rebuild: the command that builds the plan again; kernels: what
    `Engine.kernels` gave on this kind of GPU. Of an encoder-decoder `ENCODER_PLAN` is opened, too. Raises `EngineError`
    where there is no TensorRT or no GPU, and where the plan was not made for them.
    """
    trt = import_tensorrt(flavour, lean=trt_facts.version_compatible)
    check_fits(trt_facts, flavour, version=trt.__version__, compute_capability=None, rebuild=rebuild)
    device, encoder = Device(), None
    with ExitStack() as failed:
        failed.callback(device.close)
        here = device.compute_capability()
        check_fits(trt_facts, flavour, version=trt.__version__, compute_capability=here, rebuild=rebuild)
        opened = open_plan(trt, plan, trt_facts, flavour, device, rebuild, kernels)
        if facts.encoder is not None:
            reading, beside = replace(trt_facts, profiles=(READING,)), plan.with_name(ENCODER_PLAN)
            encoder = open_plan(trt, beside, reading, flavour, device, rebuild, opened.compiled)
        failed.pop_all()  # the device is the engine's from here on
    memory = Memory(device)
    decoder = TrtEngine(opened, facts, memory, columns=columns, cache_precision=cache_precision)
    if encoder is None:
        return decoder
    return TrtEncoderDecoder(encoder, decoder, facts, memory, cache_precision=cache_precision)


def open_plan(
    trt: Any, plan: Path, trt_facts: TensorRTFacts, flavour: Flavour, device: Device, rebuild: str,
    kernels: bytes | RuntimeCache | None = None,
) -> Plan:  # fmt: skip
    """Deserialise a plan and make its contexts; as `load_trt_engine`, the checks done.

    kernels: a cache that another plan of the engine has, too.
    """
    messages = Messages()
    logger = new_logger(trt, messages)
    runtime = new_tool(trt.Runtime, logger, messages, flavour)
    runtime.engine_host_code_allowed = trt_facts.version_compatible  # such a plan brings the runtime's code along
    data = plan.read_bytes()
    if flavour.ahead_of_time:
        check_valid(trt, runtime, data, plan, flavour, messages, rebuild)
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise EngineError(
            f"{flavour.title} {trt.__version__} cannot load {plan}: {messages.last()}. Build it again: {rebuild}"
        )
    compiled = None
    if flavour.ahead_of_time:
        compiled = kernels if isinstance(kernels, RuntimeCache) else RuntimeCache(engine, kernels)
    inputs = [
        name for name in map(engine.get_tensor_name, range(engine.num_io_tensors)) if _is_input(trt, engine, name)
    ]
    if engine.num_optimization_profiles != len(trt_facts.profiles):
        raise EngineError(
            f"{plan} has {engine.num_optimization_profiles} profiles, expected {len(trt_facts.profiles)}. "
            f"Build it again: {rebuild}"
        )
    profiles, contexts = [], []
    for i, name in enumerate(trt_facts.profiles):
        ranges = {n: [tuple(shape) for shape in engine.get_tensor_profile_shape(n, i)] for n in inputs}
        profiles.append(Profile(name=name, shapes={n: (low, opt, high) for n, (low, opt, high) in ranges.items()}))
        strategy = trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        context = engine.create_execution_context(strategy if compiled is None else compiled.config(engine, strategy))
        if context is None or not context.set_optimization_profile_async(i, device.stream):
            raise EngineError(
                f"The GPU has no room for {plan}'s calls ({name}): {messages.last()}. Close what uses it, or lower "
                f"--max-batch, --max-prompt or --max-nodes and build it again: {rebuild}"
            )
        contexts.append(context)
    device.synchronize()
    return Plan(profiles, contexts, messages, compiled, rebuild, (engine, runtime, logger))


def _is_input(trt: Any, engine: "trt.ICudaEngine", name: str) -> bool:
    return bool(engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
