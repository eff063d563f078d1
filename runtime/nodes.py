"""What one engine knows about a batch's search: the nodes it evaluated, and their children's scores."""

import numpy as np
from numpy.typing import NDArray

from ..catalog.trie import ItemTrie
from .types import Float64, Int64, NodeList


class EvaluatedNodes:
    """Evaluated (request, trie node) pairs, each with its path's cache slots and its children's log-probabilities.

    Entries are numbered in the order they came. Only the children the trie allows are stored: a few
    thousand numbers a request where the engine's rows have B x R x C.
    """

    def __init__(self, trie: ItemTrie) -> None:
        self._trie = trie
        self._stride = len(trie.parent)  # key = request * stride + node: one sorted list serves the whole batch
        self._keys = np.empty(0, np.int64)  # sorted
        self._entry = np.empty(0, np.int64)  # entry of each key
        self._paths = np.empty((0, self._trie.length), np.int64)  # slot of each ancestor and itself, by depth; or -1
        self._first = np.empty(0, np.int64)  # where an entry's children begin in _logprobs
        self._logprobs = np.empty(0, np.float32)

    def __len__(self) -> int:
        return len(self._keys)

    def forget(self) -> None:
        """Forget every node but the root; the slots they had become holes."""
        root = self._keys % self._stride == 0
        self._keys, self._entry = self._keys[root], self._entry[root]

    def find(self, request: Int64, node: Int64) -> Int64:
        """Entry of each pair, or -1; any shape. A node of -1 is not found."""
        if not len(self._keys):
            return np.full(np.shape(node), -1, np.int64)
        keys = request * self._stride + node
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where((self._keys[at] == keys) & (node >= 0), self._entry[at], -1)

    def paths(self, entries: Int64) -> Int64:
        """Cache slots [n, L] of the entries' ancestors and of themselves, by depth; -1 below their depth."""
        return self._paths[entries]

    def with_ancestors(self, nodes: NodeList) -> NodeList:
        """The nodes and all their ancestors (the root included) that are not evaluated yet, in order, once each."""
        request, node = nodes.request, nodes.node
        keys = [request * self._stride + node]
        for _ in range(self._trie.length):
            node = self._trie.parent[node].astype(np.int64)
            up = node >= 0
            up &= self.find(request, node) < 0
            request, node = request[up], node[up]
            if not len(node):
                break
            keys.append(request * self._stride + node)
        request, node = np.divmod(np.unique(np.concatenate(keys)), self._stride)
        new = self.find(request, node) < 0
        return NodeList(request[new], node[new])

    def add(self, nodes: NodeList, slots: Int64) -> Int64:
        """Enter nodes whose ancestors are entered or among them; slots [n] (the root's is ignored).

        Returns their paths [n, L]. Their children's log-probabilities follow by `add_scores`.
        """
        entries = np.arange(len(self._paths), len(self._paths) + len(nodes))
        keys = nodes.request * self._stride + nodes.node
        at = np.searchsorted(self._keys, keys)
        self._keys = np.insert(self._keys, at, keys)
        self._entry = np.insert(self._entry, at, entries)
        self._paths = np.concatenate([self._paths, np.full((len(nodes), self._trie.length), -1)])
        depth = self._trie.depth[nodes.node]
        for d in range(1, int(depth.max(initial=0)) + 1):
            here = np.flatnonzero(depth == d)
            parents = self._trie.parent[nodes.node[here]].astype(np.int64)
            path = self._paths[self.find(nodes.request[here], parents)]
            path[:, d - 1] = slots[here]
            self._paths[entries[here]] = path
        return self._paths[len(self._paths) - len(nodes) :]

    def add_scores(self, nodes: NodeList, rows: Int64, logprobs: NDArray[np.float32]) -> None:
        """Store the children's log-probabilities of the nodes just entered.

        rows [n] index the first axis of logprobs [rows, C].
        """
        which, child = self._trie.children(nodes.node)
        count = self._trie.child_count[nodes.node].astype(np.int64)
        first = len(self._logprobs) + np.cumsum(count) - count
        self._first = np.concatenate([self._first, first])
        flat = logprobs.ravel()[rows[which] * logprobs.shape[1] + self._trie.column[child]]
        self._logprobs = np.concatenate([self._logprobs, flat])

    def children(self, entries: Int64, node: Int64, score: Float64) -> tuple[Int64, Int64, Float64]:
        """Children of evaluated nodes [n] that score `score` [n].

        Returns (which parent [m], child node [m], child score [m]); see `ItemTrie.children`.
        """
        which, child = self._trie.children(node)
        offset = self._first[entries] - self._trie.first_child[node]
        return which, child, score[which] + self._logprobs[child + offset[which]]
