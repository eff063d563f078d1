"""What TensorRT for RTX does on a GPU when it loads a plan: whether the plan fits, and the kernels it compiles."""

from pathlib import Path
from typing import Any

from ...catalog.errors import EngineError
from .flavour import Flavour
from .library import Messages

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


class RuntimeCache:
    """Kernels that were compiled for the GPU at hand ("Working with Runtime Cache" of its documentation)."""

    def __init__(self, trt: Any, engine: Any, kernels: bytes | None) -> None:
        """kernels: of an earlier process on this kind of GPU; others are left aside by TensorRT itself."""
        self._config = engine.create_runtime_config()
        self._cache = self._config.create_runtime_cache()
        if kernels:
            self._cache.deserialize(kernels)
        self._config.set_runtime_cache(self._cache)

    def config(self, strategy: Any) -> Any:
        """What execution contexts are made with; strategy: where their memory comes from."""
        self._config.set_execution_context_allocation_strategy(strategy)
        return self._config

    def serialized(self) -> bytes:
        """The kernels so far."""
        return bytes(self._cache.serialize())
