"""Tiny graphs, and calls of them."""

from dataclasses import dataclass

import numpy as np

from specbeam.engines.base import Engine, ForwardInputs, causal
from specbeam.engines.bundle.facts import Role
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.onnxruntime.bound import FLOAT32, Tensors
from specbeam.engines.onnxruntime.device import DeviceEngine


@dataclass(frozen=True)
class Pair:
    """The tiny bundle's models by both kinds of engine."""

    bundle: Bundle
    device: dict[Role, DeviceEngine]
    plain: dict[Role, Engine]


def prompt(engine: Engine, batch: int, new: int, past: int = 0, seed: int = 0) -> ForwardInputs:
    ids = np.random.default_rng(seed).integers(0, 20, (batch, new))
    positions = np.broadcast_to(np.arange(past, past + new), (batch, new)).copy()
    rows = np.broadcast_to(np.arange(min(new, 3)), (batch, min(new, 3))).copy()
    return ForwardInputs(ids, positions, *causal(past, new, batch), rows)


def at(address: int) -> tuple[Tensors, ...]:
    return (Tensors(("x",), FLOAT32, (1,), address),)
