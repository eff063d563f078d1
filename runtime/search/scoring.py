"""How children are scored: by the whole vocabulary's probabilities, or by the allowed children's."""

from dataclasses import dataclass

import numpy as np

from ..types import Float64, Int64, ScoringKind


@dataclass(frozen=True)
class Scoring:
    """`full`: the engine's log-probabilities as they are. `constrained`: renormalised over the allowed children.

    Under `constrained` the temperature divides before the children are renormalised; `full` has none.
    """

    kind: ScoringKind = "full"
    temperature: float = 1.0

    def __call__(self, logprobs: Float64, first: Int64) -> Float64:
        """Scores of children [m], family by family; `first` [n] is where every family begins, none empty.

        NaN throughout a family that has any child with NaN or plus infinity; a family without any probability to
        share keeps minus infinity.
        """
        if self.kind == "full":
            return logprobs
        scaled = logprobs / self.temperature
        family = np.zeros(len(scaled), np.int64)
        family[first[1:]] = 1
        family = np.cumsum(family)
        largest = np.maximum.reduceat(scaled, first)
        largest[np.isneginf(largest)] = 0
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled -= largest[family]
            total = np.log(np.add.reduceat(np.exp(scaled), first))
            total[np.isneginf(total)] = 0
            normalised: Float64 = scaled - total[family]
        return normalised
