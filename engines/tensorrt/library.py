"""TensorRT's Python module: which one is here, what it says, and whether a plan fits it."""

import importlib
from collections import deque
from typing import Any

from ...catalog.errors import EngineError, is_fault, said
from ...catalog.extras import install
from ..bundle.facts import TensorRTFacts

AMPERE = (8, 0)  # the first compute capability that a hardware-compatible plan runs on
OUT_OF_MEMORY = ("out of memory", "outofmemory", "memory allocation", "requested size", "insufficient memory")


class Messages:
    """The last errors that TensorRT logged: its calls return nothing but None or False."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=8)

    def add(self, message: str) -> None:
        self._errors.append(" ".join(message.split()))

    def last(self, otherwise: str = "it gave no reason") -> str:
        """The newest of them, or `otherwise`."""
        return self._errors[-1] if self._errors else otherwise

    def out_of_memory(self) -> bool:
        """Whether memory was what lacked."""
        return any(word in error.lower() for error in self._errors for word in OUT_OF_MEMORY)


def import_tensorrt(*, lean: bool = False) -> Any:
    """The module `tensorrt`, or with `lean` the one that can only run plans, where nothing else is here.

    Raises `EngineError` where neither can be imported.
    """
    reasons = []
    for name in ("tensorrt", "tensorrt_lean")[: 1 + lean]:
        try:
            return importlib.import_module(name)
        except BaseException as error:  # the package may be here, and its libraries not
            if not is_fault(error):
                raise
            reasons.append(str(error) if isinstance(error, ImportError) else said(error))
    raise EngineError(f"TensorRT is not usable here ({'; '.join(reasons)}). Run: {install('tensorrt')}")


def new_tool(kind: Any, logger: Any, messages: Messages) -> Any:
    """TensorRT's builder or runtime; raises `EngineError` where it cannot start: mostly for want of a GPU."""
    try:
        return kind(logger)
    except TypeError as error:  # its factory returned nothing
        raise EngineError(
            f"TensorRT cannot start its {kind.__name__.lower()} here: {messages.last()}. It needs its libraries "
            f"({install('tensorrt')}), an NVIDIA GPU, and a driver that is new enough for them."
        ) from error


def new_logger(trt: Any, messages: Messages) -> Any:
    """A logger that fills `messages` with errors and drops the rest."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                messages.add(msg)

    return Logger()


def check_fits(facts: TensorRTFacts, *, version: str, compute_capability: str | None, rebuild: str) -> None:
    """Raise `EngineError`, naming `rebuild`, unless a plan runs on this TensorRT and (unless None) this GPU.

    A plan belongs to the version and the kind of GPU it was built on. A version-compatible one runs on
    later versions as well, a hardware-compatible one on every GPU from Ampere on (TensorRT's
    documentation, "Engine Compatibility").
    """
    built, here = _numbers(facts.version)[:3], _numbers(version)[:3]
    if not (built <= here if facts.version_compatible else built == here):
        needs = f"{facts.version} or later" if facts.version_compatible else ".".join(facts.version.split(".")[:3])
        raise EngineError(
            f"The engine was built by TensorRT {facts.version} and needs {needs}; here is {version}. Run: {rebuild}"
        )
    if compute_capability is None or compute_capability == facts.compute_capability:
        return
    if not facts.hardware_compatible:
        raise EngineError(
            f"The engine was built for GPUs of compute capability {facts.compute_capability}; this one has "
            f"{compute_capability}. Run: {rebuild}"
        )
    if _numbers(compute_capability) < AMPERE:
        raise EngineError(
            f"The engine runs on GPUs of compute capability 8.0 or more; this one has {compute_capability}. "
            f"Run: {rebuild}"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
