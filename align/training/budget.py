"""How long and how to train: the settings of `fit`, and the precision they come to on this machine."""

from collections.abc import Mapping
from math import ceil, isfinite
from typing import Any, Literal

import torch

from ...catalog import checks
from ...catalog.checks import Checked
from ...catalog.errors import OptionError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["cosine", "linear", "constant"]
COUNTS = ("steps", "batch", "gradient_accumulation", "checks", "patience")


class TrainingBudget(Checked, frozen=True, kw_only=True):
    """How long and how to train: either `steps` or `epochs`. Raises `OptionError` for what is out of range."""

    learning_rate: float  # at its highest, after the warm-up
    steps: int | None = None  # of the optimizer
    epochs: float | None = None
    batch: int = 16  # samples a forward pass; small, because on few cores many steps teach more than large ones
    gradient_accumulation: int = 1  # forward passes a step
    warmup: float = 0.1  # share of the steps
    schedule: Schedule = "cosine"
    weight_decay: float = 0.05  # of matrices; norms and biases have none
    max_grad_norm: float = 1.0
    checks: int = 10  # looks at the validation data, and checkpoints, evenly over the steps
    patience: int = 3  # checks without a better value before training stops
    precision: Precision = "auto"  # bf16 on a GPU that has it, else fp32; weights are kept in fp32
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.steps is None) == (self.epochs is None):
            got = "neither" if self.steps is None else "both"
            raise OptionError(f"training needs either a number of steps or of epochs; got {got}.")
        for name in ("epochs", "learning_rate", "max_grad_norm"):
            self._check(name, above=0)
        checks.within(self, 1, **dict.fromkeys(COUNTS, checks.LARGEST))
        self._check("weight_decay", least=0)
        checks.within(self, 0, seed=checks.LARGEST_SEED)
        if not 0 <= self.warmup < 1:
            raise OptionError(f"got a warm-up of {self.warmup:g}; expected a share of the steps, 0 to below 1.")

    def _check(self, name: str, *, above: float = float("-inf"), least: float = float("-inf")) -> None:
        value = getattr(self, name)
        if value is not None and not (isfinite(value) and value > above and value >= least):
            expected = f"at least {least:g}" if isfinite(least) else f"more than {above:g}"
            raise OptionError(f"got {name.replace('_', ' ')} {value:g}; expected {expected}.")

    def steps_for(self, samples: int) -> int:
        """Steps of the optimizer that the budget comes to on so many samples."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, ceil(self.epochs * self.steps_an_epoch(samples)))

    def steps_an_epoch(self, samples: int) -> int:
        return ceil(ceil(samples / self.batch) / self.gradient_accumulation)

    def check_steps(self, samples: int) -> frozenset[int]:
        """The steps after which to look at the validation data; the last is one of them."""
        steps = self.steps_for(samples)
        return frozenset(max(1, round(steps * check / self.checks)) for check in range(1, self.checks + 1))


def chosen_settings(budget: Mapping[str, Any] | None) -> tuple[dict[str, Any], int]:
    """What was chosen of a `TrainingBudget`, whose other fields are left to what is usual, and its seed."""
    chosen = checks.known({} if budget is None else budget, TrainingBudget, "budget")
    return chosen, checks.whole_number(chosen.get("seed", 0), "seed", 0, checks.LARGEST_SEED)


def usable_precision(precision: Precision) -> Literal["fp32", "bf16", "fp16"]:
    """What to compute in on this machine. Raises `OptionError` where it cannot be."""
    gpu = torch.cuda.is_available()
    if precision == "auto":
        return "bf16" if gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if precision == "fp16" and not gpu:
        raise OptionError("fp16 training needs a GPU, and PyTorch finds none here. Use --precision fp32 or bf16.")
    return precision
