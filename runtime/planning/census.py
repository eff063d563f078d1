"""What a trie lets be chosen at every depth, counted some nodes at a time."""

from typing import final

import numpy as np

from ...catalog.trie import ItemTrie, blocks
from ..types import Bool, Int64, ScoringKind
from .estimates import Census


@final
class Choices:
    """Which nodes of a trie need scores."""

    def __init__(self, trie: ItemTrie, scoring: ScoringKind) -> None:
        self._trie, self._scoring = trie, scoring

    def census(self) -> Census:
        """Of every depth."""
        trie, length = self._trie, self._trie.length
        inner, needing, one, more = np.zeros(length, np.int64), np.zeros(length, np.int64), *np.zeros((2, length))
        for depth in range(length):
            first = int(trie.level_start[depth])
            for part in blocks(int(trie.level_start[depth + 1]) - first):
                nodes = np.arange(first + part.start, first + part.stop)
                children = trie.child_count[first + part.start : first + part.stop].astype(np.float64)
                inner[depth] += np.count_nonzero(children)
                needing[depth] += np.count_nonzero(self._need(nodes))
                one[depth] += children.sum()
                more[depth] += children @ self.below(nodes)
        return Census(inner, needing, more / np.maximum(one, 1))

    def below(self, nodes: Int64) -> Int64:
        """How many children of nodes [n] need scores; of a node of -1 none."""
        trie = self._trie
        if self._scoring == "full" and trie.shortest == trie.length:  # all of them, or they are leaves
            return np.where((nodes >= 0) & trie.leads_on(nodes), trie.child_count[nodes], 0).astype(np.int64)
        which, child = trie.children(nodes)  # -1 is the last node, a leaf
        return np.bincount(which, self._need(child), len(nodes)).astype(np.int64)

    def _need(self, nodes: Int64) -> Bool:
        """Whether stepping from nodes takes scores."""
        return self._trie.has_children(nodes, several=self._scoring == "constrained")
