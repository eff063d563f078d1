"""Drafting from a pool of items: what followed similar histories, as guesses at every node of the item trie.

A node's guess at its children begins with how often the items below each are bought. It is sharpened by *contexts*
(the first tokens of the history's last items: what followed all items that begin so; and the user's group), as a
product of experts, which is what a softmax over summed logits computes, too: a child counts as many times more as it
is commoner in a context than it is at all, for as much as the context has seen. What followed the very items of the
history is added last, as counts to which the guess so far is the prior (Dirichlet smoothing). Constants were chosen on
validation users of two datasets, by the target calls that drafts save; the choice is not delicate.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...catalog.errors import PoolError
from ...catalog.items import Catalog
from ...catalog.trie import ItemTrie
from ...pools.items.pool import ItemPool, summed
from ..search.scoring import Scoring
from ..search.trie_view import TrieView
from ..stats import Call, DecodeStats
from ..types import Bool, Float64, Int64, NodeList, Request
from .guesses import Guesses

LAST = 10  # items of a history that are looked at
RECENCY = 0.85  # what an item counts, compared with the one after it
UNSEEN = 0.1  # purchases that every item is believed to have had besides
CONTEXT_COUNTS = 300.0  # followers that a context must have seen to be believed as much as what is common anyway
CONTEXT_WEIGHT = 2.0  # the exponent of all last items' contexts together
GROUP_WEIGHT = 0.25  # of the user's group
PRIOR_COUNTS = 1000.0  # followers of the history's own items that count as much as the guess without them
DEEPEST = 2  # tokens up to which contexts are told apart: below, few of their nodes were seen often enough
CHUNK = 2**22  # pairs of an item and a follower that are looked at together: 0.3 GB
CELLS = 2**24  # of the contexts' table, at most: 64 MB


class Nearby(NamedTuple):
    """What followed the last items of a batch's histories, by (request, trie node)."""

    key: Int64  # [n] request * nodes of the trie + node, ascending
    weight: Float64  # [n] of all followers below the node


class CatalogPool:
    """A pool as one catalog's trie reads it. Immutable, shared by threads."""

    def __init__(self, pool: ItemPool, catalog: Catalog, trie: ItemTrie) -> None:
        """Raises `PoolError` where the pool and the catalog have no item in common."""
        self.pool, self.trie = pool, trie
        position = catalog.position.find(pool.ids)  # [pool items] in the catalog; -1: not there
        known = np.flatnonzero(position >= 0)
        if not len(known):
            raise PoolError(
                f"{pool.path} has no item of this catalog: it knows items such as {pool.ids[0]!r}, the catalog such as "
                f"{catalog.item_ids[0]!r}. Build a pool of histories with this catalog's items (for AtSpeed files, see "
                "--item-base)."
            )
        self._leaf = np.where(position >= 0, trie.leaf_of[position], -1)  # [pool items]
        self._number = np.full(len(catalog.item_ids), -1)  # [catalog items] in the pool
        self._number[position[known]] = known
        purchases = np.full(len(catalog.item_ids), UNSEEN)
        purchases[position[known]] += pool.counts[known]
        mass = _summed_up(trie, np.bincount(trie.leaf_of, purchases, len(trie.parent)).astype(np.float64))
        self._share = np.ones(len(mass))  # [M] of a node among its siblings
        self._share[1:] = mass[1:] / mass[trie.parent[1:]]
        self.log_share = np.log(self._share)
        self.first_token = _ancestors(trie, trie.leaf_of.astype(np.int64), 1)  # [catalog items] a node of depth 1
        self.evidence = self._evidence()

    def _evidence(self) -> NDArray[np.float32]:
        """[contexts, nodes of the first depths] how much more each context believes in a node than its siblings do.

        Context 0 knows nothing; that of a node of depth 1 has its number; behind these come the pool's groups. The
        first node, the root, is that of all deeper ones, of which nothing is said.
        """
        trie, pool = self.trie, self.pool
        groups = len(pool.facts.groups)
        contexts = 1 + int(trie.child_count[0]) + groups
        ends = [int(end) for end in trie.level_start[1 : DEEPEST + 2]]
        width = max(end for end in ends if end == 1 or contexts * end <= CELLS)
        seen = np.zeros(contexts * width)
        first = _ancestors(trie, self._leaf, 1)
        end = len(pool.followers)
        for start in range(0, end, CHUNK):
            pairs = slice(start, start + CHUNK)
            item = np.searchsorted(pool.starts, np.arange(start, min(start + CHUNK, end)), side="right") - 1
            self._count(seen, width, first[item], pool.followers[pairs], pool.weights[pairs])
        group = np.repeat(np.arange(contexts - groups, contexts), np.diff(pool.group_starts))
        self._count(seen, width, group, pool.group_items, pool.group_counts)
        expected = CONTEXT_COUNTS * self._share[:width]
        return np.log1p(seen.reshape(contexts, width) / expected).astype(np.float32)

    def _count(
        self, seen: Float64, width: int, context: Int64, follower: NDArray[np.int32], weight: NDArray[np.number[Any]]
    ) -> None:
        """Add what contexts [n] saw of followers [n] to the table `seen` [contexts * width], at every depth it has."""
        node = self._leaf[follower]
        while len(node):
            there = (context > 0) & (node > 0)
            context, node, weight = context[there], node[there], weight[there]
            near = node < width
            np.add.at(seen, context[near] * width + node[near], weight[near])
            node = self.trie.parent[node].astype(np.int64)

    def said(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """[B, nodes of the first depths] what all contexts of a request say of every node, by their exponents."""
        last, weight = recent(requests)
        context = np.zeros((len(requests), 1 + LAST), np.int64)
        context[:, 1:] = np.where(last >= 0, self.first_token[last], 0)
        exponent = np.zeros(context.shape, np.float32)
        exponent[:, 1:] = CONTEXT_WEIGHT * weight / weight.sum(axis=1, keepdims=True)
        first = len(self.evidence) - len(self.pool.facts.groups)
        for row, request in enumerate(requests):
            group = None if request.user is None else self.pool.group_of(request.user)
            if group is not None:
                context[row, 0], exponent[row, 0] = first + group, GROUP_WEIGHT
        # A request at a time: all requests' parts of the table at once would be a large copy.
        return np.stack([row @ self.evidence[own] for own, row in zip(context, exponent, strict=True)])

    def nearby(self, requests: Sequence[Request], view: TrieView) -> Nearby:
        """What followed the last items of each request, those only that it allows."""
        last, weight = recent(requests)
        request, rank = np.nonzero(last >= 0)
        item, weight = self._number[last[request, rank]], weight[request, rank]
        request, item, weight = request[item >= 0], item[item >= 0], weight[item >= 0]
        which, follower, times = self.pool.rows(item)
        request, node, weight = request[which], self._leaf[follower], weight[which] * times
        there = np.flatnonzero(node > 0)
        there = there[view.allows(request[there], node[there])]
        stride = len(self.trie.parent)
        key, weight = summed(request[there] * stride + node[there], weight[there])
        parts = [(key, weight)]
        while len(key):
            above = self.trie.parent[key % stride]
            key, weight = summed((key - key % stride + above)[above > 0], weight[above > 0])
            parts.append((key, weight))
        return Nearby(*summed(*(np.concatenate(part) for part in zip(*parts, strict=True))))


class PoolGuesses(Guesses):
    """A pool's guesses for one batch."""

    def __init__(
        self, pool: CatalogPool, view: TrieView, scoring: Scoring, requests: Sequence[Request], stats: DecodeStats
    ) -> None:
        self._pool, self._view, self._scoring, self._requests, self._stats = pool, view, scoring, requests, stats
        self._looked_up = False

    def logprobs(self, nodes: NodeList) -> tuple[Int64, Int64, Float64]:
        most, prompt = int(np.bincount(nodes.request).max()), 0
        if not self._looked_up:  # the first call of a batch looks histories up, as a model's reads prompts
            prompt, self._looked_up = max(len(request.prompt) for request in self._requests), True
        with self._stats.timed("pool") as timed:
            which, child = self._view.children(nodes.request, nodes.node)
            begins = np.diff(which, prepend=-1) > 0
            first, family = np.flatnonzero(begins), np.cumsum(begins) - 1
            request, column = nodes.request[which], np.where(child < self._said.shape[1], child, 0)
            guess = _softmax(self._pool.log_share[child] + self._said[request, column], family, first)
            seen = self._seen(request, child)
            total = np.add.reduceat(seen, first)[family]
            guess = np.log((seen + PRIOR_COUNTS * guess) / (total + PRIOR_COUNTS))
            scores = self._scoring(guess, first)
        self._stats.called(Call("pool", len(self._requests), 0, prompt + most, prompt, timed.seconds))
        return which, child, scores

    def retain(self, active: Bool) -> None:
        pass

    def reseat(self, kept: Int64, requests: Sequence[Request]) -> None:
        self._requests = [self._requests[seat] for seat in kept.tolist()] + list(requests)
        for name in ("_said", "_nearby"):
            self.__dict__.pop(name, None)

    @property
    def calls(self) -> Int64:
        return np.zeros(len(self._requests), np.int64)

    @cached_property
    def _said(self) -> NDArray[np.float32]:
        return self._pool.said(self._requests)

    @cached_property
    def _nearby(self) -> Nearby:
        return self._pool.nearby(self._requests, self._view)

    def _seen(self, request: Int64, child: Int64) -> Float64:
        """[m] weights of what followed the history's own items below a child."""
        key, weight = self._nearby
        if not len(key):
            return np.zeros(len(child))
        wanted = request * len(self._pool.trie.parent) + child
        at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        return np.where(key[at] == wanted, weight[at], 0.0)


def recent(requests: Sequence[Request]) -> tuple[Int64, Float64]:
    """The last items of every history, the last first, as catalog positions (-1: none), and their weights [B, LAST]."""
    last = np.full((len(requests), LAST), -1)
    for row, request in zip(last, requests, strict=True):
        items = request.history[: -LAST - 1 : -1]
        row[: len(items)] = items
    return last, np.where(last >= 0, RECENCY ** np.arange(LAST), 0.0)


def _ancestors(trie: ItemTrie, nodes: Int64, depth: int) -> Int64:
    """The ancestor of every node [n] at a depth, or itself where it is no deeper; -1 stays."""
    while (deep := (nodes > 0) & (trie.depth[nodes] > depth)).any():
        nodes = np.where(deep, trie.parent[nodes], nodes)
    return nodes


def _summed_up(trie: ItemTrie, mass: Float64) -> Float64:
    """[M] every node's own mass and that of all below it."""
    for depth in range(trie.length, 0, -1):
        here = np.arange(trie.level_start[depth], trie.level_start[depth + 1])
        mass += np.bincount(trie.parent[here], mass[here], len(mass))
    return mass


def _softmax(logits: Float64, family: Int64, first: Int64) -> Float64:
    """Probabilities [m] that sum to 1 in every family; family [m], ascending, each beginning at `first`."""
    weight = np.exp(logits - np.maximum.reduceat(logits, first)[family])
    probability: Float64 = weight / np.add.reduceat(weight, first)[family]
    return probability
