"""The loop for one batch of requests: draft, verify, advance, until every frontier is at the leaves."""

import numpy as np

from ..catalog.trie import ItemTrie
from .draft import Drafter
from .evaluator import TreeEvaluator
from .stats import DecodeStats
from .types import Frontier, NodeList
from .verify import missing, verify_strict


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
        while (active := frontier.depth < self._trie.length).any():
            self._target.retain(active)
            self._drafter.retain(active)
            tree = self._drafter.propose(frontier, self._target.nodes)
            request, node = missing(frontier, self._target.nodes, self._trie)
            self._target.evaluate(
                NodeList(np.concatenate([request, tree.nodes.request]), np.concatenate([node, tree.nodes.node]))
            )
            verdict = verify_strict(frontier, self._target.nodes, self._trie)
            self._stats.count(verdict)
            frontier = verdict.frontier
            if not self._reuse:
                self._target.nodes.forget()
        return frontier
