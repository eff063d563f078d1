"""What a backend does: make a graph ready to run on a device, and open what was made."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from ..catalog.errors import EngineError
from .base import Engine
from .bundle.facts import EnginePrecision, Limits, Precision, Role, RoleFacts, TensorRTFacts
from .bundle.model import ModelBundle

Progress = Callable[[str, int, int], None]  # what is done now, steps done, steps in all
# How a graph says that weights alone are integers: by ONNX Runtime's MatMulNBits, or DequantizeLinear before MatMul.
WeightForm = Literal["operator", "dequantize"]


@dataclass(frozen=True)
class GraphToBuild:
    """One role's graph on its way into an engine."""

    bundle: ModelBundle
    role: Role
    precision: EnginePrecision
    source: Path  # a graph of the contract, in the type of the bundle's graphs
    cache: Precision  # the type of keys, values and mask that the engine will have
    folder: Path  # where what is made goes
    scratch: Path  # for what is needed on the way
    threads: int


class Backend(ABC):
    """One backend on one device."""

    name: str
    zero_points: ClassVar[bool] = True  # whether quantized activations may have them
    integers: tuple[str, ...] = ("static", "dynamic", "weight8", "weight4")  # methods of `calib.quantize`
    weights: ClassVar[WeightForm] = "operator"  # of weight8 and weight4

    def __init__(self, device: str) -> None:
        self.device = device

    @property
    def runs_here(self) -> bool:
        """Whether what is built runs on the machine that builds it; otherwise it is compared and timed later."""
        return True

    def why_not(self, method: str) -> str | None:
        """Why a method of `calib.quantize` is not among `integers`; None: there is nothing more to say."""
        return None

    @property
    @abstractmethod
    def precisions(self) -> tuple[EnginePrecision, ...]:
        """What engines may compute in."""

    def check(self, precision: EnginePrecision) -> None:
        """Raise `EngineError` where this backend does not run a precision on its device."""
        if precision not in self.precisions:
            raise EngineError(
                f"The {self.name} backend on {self.device} runs {', '.join(self.precisions)}; got {precision}. Choose "
                "one of these (fp32 graphs are converted), or another --backend or --device."
            )

    @abstractmethod
    def ready(self) -> None:
        """Raise `EngineError` where this machine lacks the device, before minutes are spent on what it would run."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """The libraries that an engine depends on; raises `EngineError` where one is not installed."""

    @abstractmethod
    def cache(self, precision: EnginePrecision, exported: Precision) -> Precision:
        """The type of keys and values in an engine of `precision`, made from graphs in `exported`."""

    @abstractmethod
    def build(self, graph: GraphToBuild, progress: Progress) -> TensorRTFacts | None:
        """Write to `graph.folder` what `load` opens. Raises `EngineError` where that cannot be done here."""

    @abstractmethod
    def load(
        self, bundle: ModelBundle, role: Role, folder: Path, facts: RoleFacts, threads: int, rebuild: str,
        *, catalog_head: bool = False, thrifty: bool = False,
    ) -> Engine:  # fmt: skip
        """Open what `build` wrote.

        rebuild: the command that an error names; catalog_head: open `CONSTRAINED`, which `build` wrote as well;
        thrifty: give back what a call took of this process's memory, where libraries would keep it for the next.
        """

    def limits(self, bundle: ModelBundle) -> Limits | None:
        """The largest calls that engines take; None: any."""
        return None
