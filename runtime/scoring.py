"""How children are scored: by the whole vocabulary's probabilities, or by the allowed children's."""

from dataclasses import dataclass

import numpy as np

from .types import Float64, Int64, ScoringKind


@dataclass(frozen=True)
class Scoring:
    """`full`: the engine's log-probabilities as they are. `constrained`: renormalised over the allowed children.

    Under `constrained` the temperature divides before the children are renormalised; `full` has none.
    """

    kind: ScoringKind = "full"
    temperature: float = 1.0

    def __call__(self, logprobs: Float64, first: Int64) -> Float64:
        """Scores of children [m], family by family; `first` [n] is where every family begins, none empty."""
        if self.kind == "full":
            return logprobs
        scaled = logprobs / self.temperature
        family = np.zeros(len(scaled), np.int64)
        family[first[1:]] = 1
        family = np.cumsum(family)
        scaled -= np.maximum.reduceat(scaled, first)[family]
        normalised: Float64 = scaled - np.log(np.add.reduceat(np.exp(scaled), first))[family]
        return normalised
