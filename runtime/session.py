"""The loop for one batch of requests: draft, verify, advance, until every frontier is at the leaves."""

import numpy as np

from ..catalog.trie import ItemTrie
from .draft import Drafter
from .evaluator import TreeEvaluator
from .stats import DecodeStats
from .types import Frontier, NodeList
from .verify import verify_strict


class Session:
    """One batch's speculative beam search; with `NoDrafter` it is plain beam search.

    `reuse=False` forgets all evaluated nodes after every round: AtSpeed's all-or-nothing rule, kept for
    comparison only.
    """

    def __init__(
        self, target: TreeEvaluator, drafter: Drafter, trie: ItemTrie, stats: DecodeStats, *, reuse: bool = True
    ) -> None:
        self._target, self._drafter, self._trie, self._stats, self._reuse = target, drafter, trie, stats, reuse

    def run(self, batch: int, width: int) -> Frontier:
        """The `width` best leaves of each of `batch` requests, as the target's beam search finds them."""
        nodes = np.full((batch, width), -1, np.int64)
        nodes[:, 0] = 0
        frontier = Frontier(nodes, np.where(nodes == 0, 0.0, -np.inf), np.zeros(batch, np.int64))
        missing = NodeList(np.arange(batch), np.zeros(batch, np.int64))
        while len(missing):
            active = frontier.depth < self._trie.length
            self._target.retain(active)
            self._drafter.retain(active)
            drafted = self._drafter.propose(frontier, self._target.nodes).nodes
            self._target.evaluate(
                NodeList(
                    np.concatenate([missing.request, drafted.request]), np.concatenate([missing.node, drafted.node])
                )
            )
            verdict = verify_strict(frontier, self._target.nodes, self._trie)
            self._stats.count(verdict)
            frontier, missing = verdict.frontier, verdict.missing
            if not self._reuse:
                self._target.nodes.forget()
                missing = verify_strict(frontier, self._target.nodes, self._trie).missing
        return frontier
