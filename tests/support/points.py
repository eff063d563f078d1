"""A small training task: points, a network that learns from them, and a loss that can fail."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specbeam.align.training.budget import TrainingBudget
from specbeam.align.training.fit import FitReport, fit
from specbeam.align.training.order import Samples

STEPS = 13
TRUTH = torch.arange(1.0, 5.0)


class Points(Samples):
    """Points with noise that differs between epochs."""

    def __init__(self, count: int = 18) -> None:
        self._points = torch.from_numpy(np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32))
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._points[index] + 0.01 * self._epoch

    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.arange(len(self)) % 3

    def begin(self, epoch: int) -> None:
        self._epoch = epoch


def model() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))


def collate(points: list[torch.Tensor]) -> dict[str, Any]:
    return {"x": torch.stack(points)}


def error(net: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    return (net(batch["x"])[:, 0] - batch["x"] @ TRUTH).square().mean()


def budget(**changes: Any) -> TrainingBudget:
    usual = {"learning_rate": 0.05, "steps": STEPS, "batch": 4, "checks": 4, "patience": 9, "gradient_accumulation": 2}
    return TrainingBudget(**{**usual, **changes})


@torch.no_grad()
def validate(net: torch.nn.Module) -> dict[str, float]:
    return {"validation_loss": float(error(net, {"x": torch.stack([Points()[i] for i in range(18)])}))}


class At:
    """A loss that does something at its n-th call."""

    def __init__(self, call: int, what: Callable[[], Any]) -> None:
        self._left, self._what = call, what

    def __call__(self, net: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        self._left -= 1
        factor = self._what() if self._left == 0 else None
        return error(net, batch) * (1.0 if factor is None else factor)


def run(work: Path, loss: Any = error, net: torch.nn.Module | None = None, **settings: Any) -> tuple[Any, FitReport]:
    net = net or model()
    changes = settings.pop("budget", {})
    options = {"validate": validate, "tensorboard": False, **settings}
    return net.state_dict(), fit(net, Points(), collate, loss, budget(**changes), work, **options)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def interrupt() -> None:
    raise KeyboardInterrupt
