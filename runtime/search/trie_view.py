"""The item trie as the requests of one batch may use it: what their filters forbid is not there."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ...catalog.trie import ItemTrie
from ..types import Bool, CompiledFilter, Int64, ScoringKind


class TrieView:
    """One trie, the filters of the requests that have one, and which nodes are worth evaluating.

    Masks are the filters' own: nothing here is as large as the catalog.
    """

    def __init__(
        self, trie: ItemTrie, scoring: ScoringKind = "full", filters: Sequence[CompiledFilter | None] | None = None
    ) -> None:
        """filters: of every request, or None where it may be recommended all."""
        self.trie = trie
        self.constrained = scoring == "constrained"
        self._filters = list(filters or ())  # of every request; empty: of none
        self._group()

    def reseat(self, kept: Int64, filters: Sequence[CompiledFilter | None]) -> None:
        """Of the requests kept [B'], in this order, and behind them of others with these filters, from now on."""
        own = self._filters or [None] * (int(kept.max(initial=-1)) + 1)
        self._filters = [own[seat] for seat in kept.tolist()] + list(filters)
        self._group()

    def _group(self) -> None:
        """Which filters there are, and the one of each request; several requests often share one."""
        distinct = {id(each): each for each in self._filters if each is not None}
        place = {own: number for number, own in enumerate(distinct)}
        self._distinct = list(distinct.values())
        self._which = np.array([place.get(id(each), -1) for each in self._filters], np.int64)  # [B]; -1: none

    def _leads(self, request: Int64, node: Int64) -> Bool:
        """Whether each request is allowed an item below its node, both [n]."""
        if len(self._distinct) == 1 and (self._which == 0).all():
            return self._distinct[0].leads(node)
        which, alive = self._which[request], np.ones(len(node), bool)
        order = which.argsort(kind="stable")  # those of one filter side by side
        bounds = which[order].searchsorted(np.arange(len(self._distinct) + 1))
        for each, (start, end) in zip(self._distinct, pairwise(bounds.tolist()), strict=True):
            own = order[start:end]
            alive[own] = each.leads(node[own])
        return alive

    def children(self, request: Int64, node: Int64) -> tuple[Int64, Int64]:
        """Children that each request allows of its node, both [n]; see `ItemTrie.children`."""
        which, child, _ = self.families(request, node)
        return which, child

    def families(self, request: Int64, node: Int64) -> tuple[Int64, Int64, Int64]:
        """As `children`, and where every node's children begin among them [n]."""
        which, child, first = self.trie.families(node)
        if not self._distinct:
            return which, child, first
        alive = self._leads(request[which], child)
        which, child = which[alive], child[alive]
        count = np.bincount(which, minlength=len(node))
        return which, child, count.cumsum() - count

    def allows(self, request: Int64, node: Int64) -> Bool:
        """Whether each request may be recommended an item below its node, both [n]."""
        return self._leads(request, node) if self._distinct else np.ones(len(node), bool)

    def needs_scores(self, request: Int64, node: Int64) -> Bool:
        """Whether stepping from a node takes an engine's scores: not from a leaf, nor where there is no choice.

        Any shape, the same for both; a node of -1 needs nothing.
        """
        # Under constrained scoring an only child has probability 1, which no engine need be asked for.
        needs = self.trie.has_children(node, several=self.constrained)
        if self.constrained and self._distinct and needs.any():
            place = np.nonzero(needs)
            which, _ = self.children(np.broadcast_to(request, node.shape)[place], node[place])
            needs = needs.copy()
            needs[place] = np.bincount(which, minlength=len(place[0])) > 1
        return needs

    def is_leaf(self, node: Int64) -> Bool:
        """Whether nodes are whole identifiers."""
        leaf: Bool = ~self.trie.has_children(node)
        return leaf

    def leaves(self, batch: int) -> Int64:
        """[B] how many identifiers every request allows."""
        counts = np.full(batch, self.trie.identifiers)
        for request, each in enumerate(self._filters):
            if each is not None:
                counts[request] = each.identifiers
        return counts
