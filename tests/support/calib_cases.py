"""Recorded calls for the graphs of tiny_graphs: prompts with a drafted tree behind them, then a few more nodes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from specbeam.calib.calls import Calls
from specbeam.calib.observe import Observer
from specbeam.engines.base import ForwardInputs, causal
from tiny_graphs import ROWS, tiny_graph


def tree_calls(searches: int = 6, *, shared: int = 0, seed: int = 0) -> Calls:
    """Random tokens. shared: tokens of a beginning that all searches have in common."""
    rng = np.random.default_rng(seed)
    beginning = (_call(rng, 0, 0, shared),) if shared else ()
    made = []
    for prompt in range(3, 3 + searches):
        first = _call(rng, shared, prompt, 4)
        made.append((first, _call(rng, shared + prompt + 4, 0, 2)))
    return Calls(tuple(made), beginning, seed)


def _call(rng: np.random.Generator, past: int, prompt: int, nodes: int) -> ForwardInputs:
    """`prompt` tokens and `nodes` siblings behind them: each sees the prompt, and itself."""
    new = prompt + nodes
    below, _ = causal(past, new)
    slots = np.full((1, new, 1), -1)
    if prompt:
        below[:, prompt:] = past + prompt
        slots[0, prompt:, 0] = np.arange(past + prompt, past + new)
    positions = np.minimum(np.arange(past, past + new), past + prompt or past + new)[None]
    return ForwardInputs(rng.integers(0, ROWS, (1, new)), positions, below, slots, np.arange(new)[None])


def logprobs(graph: Any, calls: Calls) -> list[NDArray[Any]]:
    """What a graph says to every call."""
    return [values for (values,) in Observer(graph, ["logprobs"], threads=1).run(calls)]


__all__ = ["logprobs", "tiny_graph", "tree_calls"]
