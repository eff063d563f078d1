"""What TensorRT for RTX does on a GPU when it loads a plan: whether the plan fits, and the kernels it compiles."""

from pathlib import Path
from typing import Any

from ...catalog.errors import EngineError, said
from ..bundle.facts import TensorRTFacts
from .flavour import RTX, Flavour
from .library import Messages, import_tensorrt, new_logger, new_tool

# Bits of the diagnostics beside a plan's validity (`EngineInvalidityDiagnostics`), and what they mean.
DIAGNOSTICS = {
    "VERSION_MISMATCH": "another version wrote it",
    "UNSUPPORTED_CC": "it was not compiled for this GPU's compute capability",
    "OLD_CUDA_DRIVER": "the driver is too old: update it",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old: update it",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory",
    "MALFORMED_ENGINE": "it is damaged, or no plan",
    "CUDA_ERROR": "CUDA failed",
}


def plan_validity(trt: Any, runtime: Any, data: bytes) -> tuple[str, list[str]]:
    """VALID, SUBOPTIMAL or INVALID, and why, by a plan's first bytes (`IRuntime::getEngineValidity`)."""
    validity, bits = runtime.get_engine_validity(data)
    named = trt.EngineInvalidityDiagnostics.__members__
    return validity.name, [why for name, why in DIAGNOSTICS.items() if name in named and int(bits) & int(named[name])]


def check_valid(
    trt: Any, runtime: Any, data: bytes, plan: Path, flavour: Flavour, messages: Messages, rebuild: str
) -> None:
    """Raise `EngineError`, naming `rebuild`, for a plan that this GPU cannot run."""
    validity, why = plan_validity(trt, runtime, data)
    if validity == "INVALID":
        reason = "; ".join(why) or messages.last()
        raise EngineError(f"{flavour.title} {trt.__version__} cannot run {plan} here: {reason}. Run: {rebuild}")


def told_validity(plan: Path, facts: TensorRTFacts) -> str:
    """What the library that is installed says about a plan on this machine, by the plan's header; in words."""
    try:
        trt = import_tensorrt(RTX)
    except EngineError:
        return "not asked, TensorRT for RTX is not installed here"
    if trt.__version__ != facts.version:
        return f"cannot run here: {RTX.title} {facts.version} compiled it, and {trt.__version__} is installed"
    messages = Messages()
    try:
        runtime = new_tool(trt.Runtime, new_logger(trt, messages), messages, RTX)
        with plan.open("rb") as file:
            validity, why = plan_validity(trt, runtime, file.read(runtime.engine_header_size))
    except (EngineError, OSError) as error:
        return f"not known, {said(error)}"
    if validity == "INVALID":  # without a driver it is, for no reason of its own
        return f"cannot run here: {'; '.join(why)}" if why else "whether it runs here is not known, no GPU answers"
    return "valid here" if validity == "VALID" else "runs here, slower than one that was compiled for this GPU"


class RuntimeCache:
    """Kernels that were compiled for the GPU at hand ("Working with Runtime Cache" of its documentation).

    All plans of an engine may share one.
    """

    def __init__(self, engine: Any, kernels: bytes | None) -> None:
        """kernels: of an earlier process on this kind of GPU; others are left aside by TensorRT itself."""
        self._maker = engine.create_runtime_config()
        self._cache = self._maker.create_runtime_cache()
        if kernels:
            self._cache.deserialize(kernels)

    def config(self, engine: Any, strategy: Any) -> Any:
        """What an engine's execution contexts are made with; strategy: where their memory comes from."""
        config = engine.create_runtime_config()
        config.set_runtime_cache(self._cache)
        config.set_execution_context_allocation_strategy(strategy)
        return config

    def serialized(self) -> bytes:
        """The kernels so far."""
        return bytes(self._cache.serialize())
