"""How a graph is quantized, as asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..catalog import checks
from ..catalog.checks import Checked
from ..catalog.errors import OptionError
from ..engines.build import Order
from .quantize import Method
from .ranges import Estimator, check_percentile
from .smooth import ALPHA

ACTIVATIONS = ("estimator", "percentile", "smooth")  # options that say how these become integers


class Int8Options(Checked, frozen=True):
    """How a graph is quantized. Raises `OptionError` for what cannot be."""

    method: Method | Literal["auto"] = "auto"  # auto: the fastest here that passes the gate, dynamic last
    estimator: Estimator = "percentile"
    percentile: float | None = None
    smooth: float | None = ALPHA  # of SmoothQuant; None: weights as they are
    keep: tuple[str, ...] = ()  # parts left in floating point: "head", "first", "last", "layers.3", "encoder.read"
    calibration_size: int = 200  # histories to calibrate on
    gate: bool = True
    gate_size: int = 20_000  # most requests to compare on, of other users
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.within(self, 1, calibration_size=checks.LARGEST, gate_size=checks.LARGEST)
        checks.within(self, 0, seed=checks.LARGEST_SEED)
        check_percentile(self.estimator, self.percentile)
        if self.smooth is not None and not 0 <= self.smooth <= 1:
            raise OptionError(f"got a smoothing strength of {self.smooth}; expected 0 to 1.")


def check_meaning(order: Order, options: Int8Options, ranges: Path | None) -> None:
    """Raise `OptionError` for what is asked of activations where none are quantized."""
    if "int8" in order.precisions.values():
        return
    plain = Int8Options()
    told = [name for name in ACTIVATIONS if getattr(options, name) not in (None, getattr(plain, name))]
    told += [] if ranges is None else ["ranges"]
    if told:
        raise OptionError(
            f"got {', '.join(told)} for int8-weights; expected none of them: activations stay as they are. Leave that "
            "out."
        )


def kept_parts(asked: Sequence[str], parts: Sequence[str]) -> list[str]:
    """The parts that stay in floating point, "first" and "last" resolved; raises `OptionError` for unknown ones."""
    layers = [part for part in parts if part.startswith("layers.")]
    names = {"first": layers[0], "last": layers[-1]} | {part: part for part in parts}
    unknown = [part for part in asked if part not in names]
    if unknown:
        raise OptionError(f"got the parts {', '.join(unknown)} to keep; expected any of: {', '.join(names)}.")
    kept = list(dict.fromkeys(names[part] for part in asked))
    if len(kept) == len(parts):
        raise OptionError(f"got all parts to keep ({', '.join(kept)}): nothing is left to quantize. Keep fewer.")
    return kept
