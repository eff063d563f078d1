"""TensorRT's Python module, of either flavour: which one is here, what it says, and whether a plan fits it."""

import importlib
from collections import deque
from threading import Lock
from typing import Any
from weakref import WeakSet

from ...catalog.errors import EngineError, is_fault, said
from ...catalog.extras import install
from ..bundle.facts import TensorRTFacts
from .flavour import Flavour

AMPERE = (8, 0)  # the first compute capability that a hardware-compatible plan runs on
OUT_OF_MEMORY = ("out of memory", "outofmemory", "memory allocation", "requested size", "insufficient memory")
LAYERS = "Layers:"  # what the message begins with that lists what a plan was compiled to
_LISTENING: "WeakSet[Messages]" = WeakSet()
_LOGGERS: dict[str, Any] = {}  # by module; see `new_logger`
_LOCK = Lock()


class Messages:
    """The last errors that TensorRT logged: its calls return nothing but None or False."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=8)
        self.interruption: BaseException | None = None  # that came while TensorRT was telling something
        self.layers = ""  # the list of what was compiled last, as the builder tells it

    def add(self, message: str) -> None:
        self._errors.append(" ".join(message.split()))

    def last(self, otherwise: str = "it gave no reason") -> str:
        """The newest of them, or `otherwise`."""
        return self._errors[-1] if self._errors else otherwise

    def out_of_memory(self) -> bool:
        """Whether memory was what lacked."""
        return any(word in error.lower() for error in self._errors for word in OUT_OF_MEMORY)


def import_tensorrt(flavour: Flavour, *, lean: bool = False) -> Any:
    """A flavour's module, or with `lean` one that can only run plans, where nothing else is here.

    Raises `EngineError` where none can be imported.
    """
    reasons = []
    for name in flavour.modules if lean else flavour.modules[:1]:
        try:
            return importlib.import_module(name)
        except BaseException as error:  # the package may be here, and its libraries not
            if not is_fault(error):
                raise
            reasons.append(str(error) if isinstance(error, ImportError) else said(error))
    raise EngineError(f"{flavour.title} is not usable here ({'; '.join(reasons)}). Run: {install(flavour.backend)}")


def new_tool(kind: Any, logger: Any, messages: Messages, flavour: Flavour) -> Any:
    """TensorRT's builder or runtime; raises `EngineError` where it cannot start: mostly for want of a GPU."""
    try:
        return kind(logger)
    except TypeError as error:  # its factory returned nothing
        raise EngineError(
            f"{flavour.title} cannot start its {kind.__name__.lower()} here: {messages.last()}. It needs its libraries "
            f"({install(flavour.backend)}), an NVIDIA GPU, and a driver that is new enough for them."
        ) from error


def new_logger(trt: Any, messages: Messages) -> Any:
    """A logger that fills `messages`, and those of all others who still listen.

    A process has one for each module: TensorRT keeps the first that it is given while any of its tools lives, and
    ignores the others.
    """
    with _LOCK:
        _LISTENING.add(messages)
        if trt.__name__ not in _LOGGERS:
            _LOGGERS[trt.__name__] = _made_logger(trt)
        return _LOGGERS[trt.__name__]


def _made_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            try:
                failed = severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)
                if failed or msg.startswith(LAYERS):
                    _tell(msg, failed)
            except BaseException as error:  # an interrupt, which TensorRT would drop
                for messages in list(_LISTENING):
                    messages.interruption = error

    return Logger()


def _tell(message: str, failed: bool) -> None:
    with _LOCK:
        listening = list(_LISTENING)
    for messages in listening:
        if failed:
            messages.add(message)
        else:
            messages.layers = message


def check_fits(
    facts: TensorRTFacts, flavour: Flavour, *, version: str, compute_capability: str | None, rebuild: str
) -> None:
    """Raise `EngineError`, naming `rebuild`, unless a plan runs on this TensorRT and (unless None) this GPU.

    A plan belongs to the version and the kind of GPU it was built on. A version-compatible one runs on
    later versions as well, a hardware-compatible one on every GPU from Ampere on (TensorRT's
    documentation, "Engine Compatibility"), one of TensorRT for RTX on those it was compiled for (its "CPU-Only AOT
    and TensorRT-RTX Engines": by default on those after the last of them, too).
    """
    built, here = _numbers(facts.version)[:3], _numbers(version)[:3]
    if not (built <= here if facts.version_compatible else built == here):
        needs = f"{facts.version} or later" if facts.version_compatible else ".".join(facts.version.split(".")[:3])
        raise EngineError(
            f"The engine was built by {flavour.title} {facts.version} and needs {needs}; here is {version}. "
            f"Run: {rebuild}"
        )
    if compute_capability is None or compute_capability == facts.compute_capability:
        return
    if facts.compiled_for:
        later = facts.compiled_for == flavour.usual and _numbers(compute_capability) > _numbers(flavour.usual[-1])
        if compute_capability not in facts.compiled_for and not later:
            raise EngineError(
                f"The engine was compiled for GPUs of compute capability {', '.join(facts.compiled_for)}; this one has "
                f"{compute_capability}. {_elsewhere(facts, flavour, compute_capability, rebuild)}"
            )
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


def _elsewhere(facts: TensorRTFacts, flavour: Flavour, compute_capability: str, rebuild: str) -> str:
    """What to do on a GPU that a plan was not compiled for."""
    if compute_capability in flavour.targets:
        targets = sorted({*facts.compiled_for, compute_capability}, key=_numbers)
        return f"Compile it for this one, too: {rebuild} --compute-capability {','.join(targets)}"
    return f"{flavour.title} does not support this one: build with --backend tensorrt or onnxruntime on it."


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
