"""What a drafter believes of children's probabilities: a draft model, a pool (`retrieval`), or both."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ..search.evaluator import TreeEvaluator
from ..types import Bool, Float64, Int64, NodeList, Request

POOL_SHARE = 0.25  # of a mixture: with half, an aligned draft loses more than one that is not aligned gains


class Guesses(ABC):
    """Guesses for one batch; made anew for each batch."""

    @abstractmethod
    def logprobs(self, nodes: NodeList) -> tuple[Int64, Int64, Float64]:
        """The log-probabilities of the children of nodes [n] that have a choice of them.

        Returns (position in `nodes` of each child's parent, child, log-probability), all [m], as `TrieView.children`
        lists them.
        """

    @abstractmethod
    def retain(self, active: Bool) -> None:
        """Requests that are not active [B] are finished."""

    @abstractmethod
    def reseat(self, kept: Int64, requests: Sequence[Request]) -> None:
        """Serve the requests kept [B'], in this order, and behind them these others, from now on."""

    @property
    @abstractmethod
    def calls(self) -> Int64:
        """[B] calls of a draft engine in which each request had tokens."""


class ModelGuesses(Guesses):
    """A draft model's."""

    def __init__(self, evaluator: TreeEvaluator) -> None:
        self._evaluator = evaluator

    def logprobs(self, nodes: NodeList) -> tuple[Int64, Int64, Float64]:
        self._evaluator.evaluate(nodes)
        return self._evaluator.nodes.logprobs(nodes)

    def retain(self, active: Bool) -> None:
        self._evaluator.retain(active)

    def reseat(self, kept: Int64, requests: Sequence[Request]) -> None:
        self._evaluator.reseat(kept, [request.prompt for request in requests])

    @property
    def calls(self) -> Int64:
        return self._evaluator.calls


class MixedGuesses(Guesses):
    """A mixture of two distributions, child by child: what either believes in is drafted."""

    def __init__(self, model: Guesses, pool: Guesses) -> None:
        self._model, self._pool = model, pool

    def logprobs(self, nodes: NodeList) -> tuple[Int64, Int64, Float64]:
        which, child, model = self._model.logprobs(nodes)
        _, _, pool = self._pool.logprobs(nodes)
        mixed: Float64 = np.logaddexp(np.log1p(-POOL_SHARE) + model, np.log(POOL_SHARE) + pool)
        return which, child, mixed

    def retain(self, active: Bool) -> None:
        self._model.retain(active)
        self._pool.retain(active)

    def reseat(self, kept: Int64, requests: Sequence[Request]) -> None:
        self._model.reseat(kept, requests)
        self._pool.reseat(kept, requests)

    @property
    def calls(self) -> Int64:
        return self._model.calls + self._pool.calls
