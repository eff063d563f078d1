"""How much to draft in every round: the question, and the answer by hand."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ...catalog.trie import ItemTrie
from ..stats import Call
from ..types import Bool, DraftShape, DraftTree, Frontier, Int64, Verdict


class Course(ABC):
    """Decides what to draft for one batch, round by round."""

    @abstractmethod
    def plan(self, frontier: Frontier) -> tuple[Int64, Bool]:
        """What to draft in the coming round.

        Returns how many nodes a model should draft for each request at each level [B, levels], and for which
        requests [B] all children of the frontier are to be evaluated instead. Zeros for requests that are done.
        """

    @abstractmethod
    def observe(self, before: Frontier, tree: DraftTree, verdict: Verdict) -> None:
        """What came of the round that was planned last, which began at `before`."""

    @abstractmethod
    def end(self, calls: Sequence[Call], seconds: float) -> None:
        """The batch is done: its calls, and how long it took in all."""

    @abstractmethod
    def leave(self, seconds: float) -> None:
        """Others join the batch, which took so long until now: of such a mixture nothing is concluded."""


class Planning(ABC):
    """Decides what to draft; one for all batches of a recommender, shared by its threads."""

    @abstractmethod
    def begin(self, width: Int64, prompt: int) -> Course:
        """The course of a batch whose requests ask for lists of `width` [B], the longest prompt having so many tokens.

        A list of 0 asks for nothing.
        """

    @abstractmethod
    def for_trie(self, trie: ItemTrie) -> "Planning":
        """The same for another catalog of the same engines; what was learned of drafts is believed of it, too."""

    @abstractmethod
    def resume(self, width: Int64, prompt: int) -> Course:
        """As `begin`, of a batch that others have joined: by what is known, and nothing is tried or concluded."""


class FixedPlanning(Planning, Course):
    """The same shape in every round of every batch; no shape: nothing is ever drafted."""

    def __init__(self, shape: DraftShape | None) -> None:
        self.shape = shape
        self._widths = np.zeros(0, np.int64) if shape is None else np.full(shape.length, shape.width)

    def begin(self, width: Int64, prompt: int) -> Course:
        return self

    def for_trie(self, trie: ItemTrie) -> Planning:
        return self

    def resume(self, width: Int64, prompt: int) -> Course:
        return self

    def plan(self, frontier: Frontier) -> tuple[Int64, Bool]:
        active = frontier.active
        return np.where(active[:, None], self._widths, 0), np.zeros(len(active), bool)

    def observe(self, before: Frontier, tree: DraftTree, verdict: Verdict) -> None:
        pass

    def end(self, calls: Sequence[Call], seconds: float) -> None:
        pass

    def leave(self, seconds: float) -> None:
        pass
