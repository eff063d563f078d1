"""What one engine knows about a batch's search: the nodes it evaluated, and their children's scores."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...catalog.finite import are_logprobs
from ..types import Beams, Bool, Float64, Int64, NodeList
from .beam import numbered
from .noise import SAMPLE, Noise, perturbed
from .scoring import Scoring
from .trie_view import TrieView


class Lookup(NamedTuple):
    """Nodes as they stand with one engine."""

    entry: Int64  # -1 where the node was not evaluated
    needed: Bool  # whether stepping from it takes the engine's scores

    @property
    def lacking(self) -> Bool:
        """Whether these are not known yet."""
        lacking: Bool = self.needed & (self.entry < 0)
        return lacking


class EvaluatedNodes:
    """Evaluated (request, trie node) pairs, each with its path's cache slots and its children's log-probabilities.

    Entries are numbered in the order they came. Only the children a request allows are stored: a few
    thousand numbers a request where the engine's rows have B x R x C.
    """

    def __init__(self, view: TrieView, scoring: Scoring, noise: Noise | None = None) -> None:
        """noise: of stochastic beam search; children are then ranked by perturbed scores."""
        self._view, self._trie, self._scoring, self._noise = view, view.trie, scoring, noise
        # key = request * stride + node: one sorted list serves the whole batch. A node of -1 has a key of its own,
        # which is never entered; the last key is nobody's, so that a place can be looked up for any.
        self._stride = len(self._trie.parent) + 1
        self._keys = np.full(1, np.iinfo(np.int64).max)  # sorted
        self._entry = np.full(1, -1)  # entry of each key
        self._paths = np.empty((0, self._trie.length), np.int64)  # slot of each ancestor and itself, by depth; or -1
        # Where an entry's children begin in _logprobs. As -1 is no entry, the last place is kept for none.
        self._first = np.zeros(1, np.int64)
        self._logprobs = np.zeros(1)  # the first stands for every only child whose parent needs no scores
        self._owner = np.full(1, -1)  # request of each of these
        self.failed = np.empty(0, np.int64)  # requests for which the engine gave what is no log-probability

    def __len__(self) -> int:
        return len(self._keys) - 1

    def forget(self) -> None:
        """Forget every node but the root; the slots they had become holes."""
        kept = self._keys % self._stride == 0
        kept[-1] = True
        self._keys, self._entry = self._keys[kept], self._entry[kept]

    def reseat(self, kept: Int64, before: int) -> None:
        """Know of the requests kept [B'] alone, of `before` in all, by their places in this order from now on."""
        seat = np.full(before, -1)
        seat[kept] = np.arange(len(kept))
        request, node = np.divmod(self._keys[:-1], self._stride)
        stays = seat[request] >= 0
        keys, entry = seat[request[stays]] * self._stride + node[stays], self._entry[:-1][stays]
        order = keys.argsort()
        used = np.sort(entry)
        renumbered = np.searchsorted(used, entry[order])
        self._keys, self._entry = np.append(keys[order], self._keys[-1]), np.append(renumbered, -1)
        known = (self._owner < 0) | (seat[self._owner] >= 0)
        place = known.cumsum() - 1
        self._paths, self._first = self._paths[used], np.append(place[self._first[used]], 0)
        self._logprobs, self._owner = self._logprobs[known], seat[self._owner[known]]
        self._owner[0] = -1
        self.failed = np.sort(seat[self.failed][seat[self.failed] >= 0])

    def compact(self, lengths: Int64, length: int) -> Int64:
        """Have every request's slots side by side behind its prompt, which has lengths [B] of the cache's `length`.

        Returns the old slot of every new one [B, S'], as `KVCache.keep` takes them.
        """
        batch, entry = len(lengths), self._entry[:-1]
        request, node = np.divmod(self._keys[:-1], self._stride)
        below = node > 0
        request, entry = request[below], entry[below]
        old = self._paths[entry, self._trie.depth[node[below]] - 1]
        order = np.lexsort((old, request))
        count, place = numbered(request[order], batch)
        new = np.empty(len(order), np.int64)
        new[order] = lengths[request[order]] + place
        slots = np.arange(int((lengths + count).max(initial=0)))
        taken = np.where(slots < lengths[:, None], slots, 0)  # what is behind a row's last slot is hidden
        taken[request, new] = old
        table = np.full((batch, length + 1), -1)
        table[request, old] = new
        self._paths[entry] = table[request[:, None], self._paths[entry]]
        return taken

    def find(self, request: Int64, node: Int64) -> Int64:
        """Entry of each pair, or -1; any shapes that go together. A node of -1 is not found."""
        return self._find(request * self._stride + node)

    def listed(self) -> NodeList:
        """All evaluated nodes, sorted by request and then by trie node, so parents first."""
        return NodeList(*np.divmod(self._keys[:-1], self._stride))

    def looked_up(self, request: Int64, node: Int64) -> Lookup:
        """Nodes as they stand with this engine; any shapes, as `find` (node may be -1)."""
        return Lookup(self.find(request, node), self._view.needs_scores(request, node))

    def lacks(self, request: Int64, node: Int64) -> Bool:
        """Whether nodes have children whose scores are not known yet; any shapes, as `find` (node may be -1)."""
        return self.looked_up(request, node).lacking

    def with_ancestors(self, nodes: NodeList) -> NodeList:
        """The nodes and all their ancestors (the root included) that are not evaluated yet.

        They come sorted by request and then by trie node, so parents first, and once each.
        """
        keys = _distinct(nodes.request * self._stride + nodes.node)
        keys = keys[self._find(keys) < 0]  # whose ancestors are evaluated, too, where it is
        while True:
            node = keys % self._stride
            above = keys - node + self._trie.parent[node]
            above = above[(self._find(above) < 0) & (node > 0)]
            if len(above):
                above = above[keys[keys.searchsorted(above, side="right") - 1] != above]
            if not len(above):
                return NodeList(keys // self._stride, node)
            keys = _distinct(np.concatenate([keys, above]))

    def add(self, nodes: NodeList, slots: Int64) -> Int64:
        """Enter nodes in the order of `with_ancestors`; slots [n] (the root's is ignored).

        Returns their paths [n, L]. The children's log-probabilities follow by `add_scores`.
        """
        before, count = len(self._paths), len(nodes)
        keys = np.concatenate([self._keys, nodes.request * self._stride + nodes.node])
        entry = np.concatenate([self._entry, np.arange(before, before + count)])
        order = keys.argsort(kind="stable")  # two sorted runs: a merge
        self._keys, self._entry = keys[order], entry[order]
        self._paths = np.concatenate([self._paths, np.full((count, self._trie.length), -1)])
        self._first = np.concatenate([self._first, np.zeros(count, np.int64)])  # the last is none's still
        depth = self._trie.depth[nodes.node]
        parent = self._find(nodes.request * self._stride + self._trie.parent[nodes.node])
        new = self._paths[before:]
        for d in np.bincount(depth)[1:].nonzero()[0].tolist():
            here = (depth == d + 1).nonzero()[0]
            path = self._paths[parent[here]]
            path[:, d] = slots[here]
            new[here] = path
        return new

    def add_scores(self, nodes: NodeList, rows: Int64, logprobs: NDArray[np.float32]) -> None:
        """Store the children's scores of nodes that were entered and that need scores.

        rows [n] index the first axis of logprobs [rows, C]. What is no log-probability (NaN, infinity) counts as a
        probability of 0, and its request as `failed`.
        """
        which, child, first = self._view.families(nodes.request, nodes.node)
        flat = logprobs.ravel()[rows[which] * logprobs.shape[1] + self._trie.column[child]]
        self._first[self.find(nodes.request, nodes.node)] = len(self._logprobs) + first
        scores = self._scoring(flat.astype(np.float64), first)
        if not are_logprobs(scores):
            unfit = ~(scores < np.inf)
            self.failed = np.union1d(self.failed, nodes.request[which[unfit]])
            scores[unfit] = -np.inf
        self._logprobs = np.concatenate([self._logprobs, scores])
        self._owner = np.concatenate([self._owner, nodes.request[which]])

    def logprobs(self, nodes: NodeList) -> tuple[Int64, Int64, Float64]:
        """The log-probabilities of the children of nodes [n] whose scores are known, or that need none.

        Returns (position in `nodes` of each child's parent, child, log-probability), all [m]; parents in the order
        given.
        """
        return self._logprobs_of(nodes, self.find(nodes.request, nodes.node))

    def children(self, beams: Beams, entry: Int64 | None = None) -> tuple[Int64, Beams]:
        """The scored children of nodes whose scores are known, or that need none.

        entry [n]: the beams', if they have been looked up. Returns (position in `beams` of each child's parent,
        children); parents in the order given.
        """
        nodes = NodeList(beams.request, beams.node)
        which, child, logprob = self.logprobs(nodes) if entry is None else self._logprobs_of(nodes, entry)
        return which, self.extended(beams, which, child, logprob)

    def extended(self, beams: Beams, which: Int64, child: Int64, logprob: Float64) -> Beams:
        """Children [m] of the beams `which` [m] (ascending), given their log-probabilities, whoever says these."""
        owner, scores = beams.request[which], beams.score[which] + logprob
        keys = scores
        if self._noise is not None:
            keys = perturbed(beams.key, which, scores, self._noise.gumbel(owner, child, SAMPLE))
        return Beams(owner, child, scores, keys)

    def path_scores(self, nodes: NodeList) -> Float64:
        """[n] summed log-probabilities of nodes' paths; -inf where a score on the way is not known. Slow."""
        node, total = nodes.node, np.zeros(len(nodes))
        for _ in range(self._trie.length):
            below = np.flatnonzero(node > 0)
            request, parent = nodes.request[below], self._trie.parent[node[below]].astype(np.int64)
            total[below[self.lacks(request, parent)]] = -np.inf
            zeros = np.zeros(len(below))
            which, kids = self.children(Beams(request, parent, zeros, zeros))
            mine = kids.node == node[below][which]
            total[below[which[mine]]] += kids.score[mine]
            node = np.where(node > 0, self._trie.parent[node], 0)
        return total

    def _logprobs_of(self, nodes: NodeList, entry: Int64) -> tuple[Int64, Int64, Float64]:
        """As `logprobs`, of nodes whose entries [n] are known."""
        which, child, start = self._view.families(nodes.request, nodes.node)
        return which, child, self._logprobs[np.arange(len(which)) + (self._first[entry] - start)[which]]

    def _find(self, keys: Int64) -> Int64:
        """Entry of each key, or -1."""
        at = self._keys.searchsorted(keys)
        return np.where(self._keys[at] == keys, self._entry[at], -1)


def _distinct(keys: Int64) -> Int64:
    """Sorted, once each."""
    keys.sort()
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return keys[first]
