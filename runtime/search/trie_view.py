"""The item trie as the requests of one batch may use it: what their filters forbid is not there."""

from collections.abc import Sequence

import numpy as np

from ...catalog.trie import ItemTrie
from ..types import Bool, Int64, ScoringKind


class TrieView:
    """One trie, a mask of live nodes for the requests that have a filter, and which nodes are worth evaluating."""

    def __init__(
        self, trie: ItemTrie, scoring: ScoringKind = "full", live: Sequence[Bool | None] | None = None
    ) -> None:
        """live: for every request the nodes [M] that lead to an item it allows, or None where it allows all."""
        self.trie = trie
        self.constrained = scoring == "constrained"
        # Under constrained scoring an only child has probability 1, which no engine need be asked for.
        self._open = trie.forks if self.constrained else trie.inner
        self._live: Bool | None = None  # [filters, M]
        self._masks = list(live or ())  # of every request; empty: of none
        self._stack()

    def reseat(self, kept: Int64, live: Sequence[Bool | None]) -> None:
        """Of the requests kept [B'], in this order, and behind them of others with these masks, from now on."""
        masks = self._masks or [None] * (int(kept.max(initial=-1)) + 1)
        self._masks = [masks[seat] for seat in kept.tolist()] + list(live)
        self._stack()

    def _stack(self) -> None:
        if all(mask is None for mask in self._masks):
            self._live = None
            return
        rows = {id(mask): mask for mask in self._masks}  # requests often share a filter
        place = {mask: i for i, mask in enumerate(rows)}
        everything = np.ones(len(self.trie.parent), bool)
        self._live = np.stack([everything if mask is None else mask for mask in rows.values()])
        self._filter = np.array([place[id(mask)] for mask in self._masks])  # [B]

    def children(self, request: Int64, node: Int64) -> tuple[Int64, Int64]:
        """Children that each request allows of its node, both [n]; see `ItemTrie.children`."""
        which, child, _ = self.families(request, node)
        return which, child

    def families(self, request: Int64, node: Int64) -> tuple[Int64, Int64, Int64]:
        """As `children`, and where every node's children begin among them [n]."""
        which, child, first = self.trie.families(node)
        if self._live is None:
            return which, child, first
        alive = self._live[self._filter[request][which], child]
        which, child = which[alive], child[alive]
        count = np.bincount(which, minlength=len(node))
        return which, child, count.cumsum() - count

    def allows(self, request: Int64, node: Int64) -> Bool:
        """Whether each request may be recommended an item below its node, both [n]."""
        if self._live is None:
            return np.ones(len(node), bool)
        allowed: Bool = self._live[self._filter[request], node]
        return allowed

    def needs_scores(self, request: Int64, node: Int64) -> Bool:
        """Whether stepping from a node takes an engine's scores: not from a leaf, nor where there is no choice.

        Any shape, the same for both; a node of -1 needs nothing.
        """
        needs: Bool = self._open[node]
        if self.constrained and self._live is not None and needs.any():
            place = np.nonzero(needs)
            which, _ = self.children(np.broadcast_to(request, node.shape)[place], node[place])
            needs = needs.copy()
            needs[place] = np.bincount(which, minlength=len(place[0])) > 1
        return needs

    def is_leaf(self, node: Int64) -> Bool:
        """Whether nodes are whole identifiers."""
        leaf: Bool = ~self.trie.inner[node]
        return leaf

    def leaves(self, batch: int) -> Int64:
        """[B] how many identifiers every request allows."""
        if self._live is None:
            return np.full(batch, self.trie.identifiers)
        counts: Int64 = (self._live & (self.trie.child_count == 0)).sum(axis=1)[self._filter]
        return counts
