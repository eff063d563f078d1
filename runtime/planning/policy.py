"""How much to draft in every round: the question, and the answer by hand."""

from abc import ABC, abstractmethod

import numpy as np

from ..types import Bool, DraftShape, DraftTree, Frontier, Int64, Verdict


class Planning(ABC):
    """Decides what to draft; one for all batches of a recommender, shared by its threads."""

    @abstractmethod
    def plan(self, frontier: Frontier, prompt: int) -> tuple[Int64, Bool]:
        """What to draft in the coming round of a batch whose longest prompt has `prompt` tokens.

        Returns how many nodes a model should draft for each request at each level [B, levels], and for which
        requests [B] all children of the frontier are to be evaluated instead. Zeros for requests that are done.
        """

    @abstractmethod
    def observe(self, before: Frontier, tree: DraftTree, verdict: Verdict) -> None:
        """What came of a round that began at `before`."""


class FixedPlanning(Planning):
    """The same shape in every round; no shape: nothing is ever drafted."""

    def __init__(self, shape: DraftShape | None) -> None:
        self.shape = shape
        self._widths = np.zeros(0, np.int64) if shape is None else np.full(shape.length, shape.width)

    def plan(self, frontier: Frontier, prompt: int) -> tuple[Int64, Bool]:
        active = frontier.active
        return np.where(active[:, None], self._widths, 0), np.zeros(len(active), bool)

    def observe(self, before: Frontier, tree: DraftTree, verdict: Verdict) -> None:
        pass
