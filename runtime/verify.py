"""Verification: how far the evaluated nodes let every request's frontier advance. Pure: no engine, no cache."""

import numpy as np

from ..catalog.trie import ItemTrie
from .beam import best_per_request
from .nodes import EvaluatedNodes
from .types import Bool, Frontier, Int64, Verdict


def verify_strict(frontier: Frontier, known: EvaluatedNodes, trie: ItemTrie) -> Verdict:
    """Step every frontier as far as all of its nodes are evaluated: exactly the target's own beam search.

    After AtSpeed's strict top-K verification (arXiv 2410.05165), except that a level with a missing node
    is not rejected: the frontier waits there, and what was evaluated beyond it stays valid.
    """
    needed, found, levels, levels_found = np.zeros((4, trie.length), np.int64)
    ready = _ready(frontier, known, trie)
    while ready.any():
        frontier = _step(frontier, known, ready)
        moved = ready & (frontier.depth < trie.length)
        ready = moved & _ready(frontier, known, trie)
        depth = frontier.depth[moved]
        hits = known.find(np.flatnonzero(moved)[:, None], frontier.nodes[moved]) >= 0
        np.add.at(needed, depth, (frontier.nodes[moved] >= 0).sum(axis=1))
        np.add.at(found, depth, hits.sum(axis=1))
        np.add.at(levels, depth, 1)
        np.add.at(levels_found, depth, ready[moved])
    return Verdict(frontier, needed, found, levels, levels_found)


def missing(frontier: Frontier, known: EvaluatedNodes, trie: ItemTrie) -> tuple[Int64, Int64]:
    """(request [n], node [n]) of the frontier nodes that must be evaluated before their request can step."""
    request, rank = np.nonzero((frontier.nodes >= 0) & (frontier.depth < trie.length)[:, None])
    node = frontier.nodes[request, rank]
    lacking = known.find(request, node) < 0
    return request[lacking], node[lacking]


def _ready(frontier: Frontier, known: EvaluatedNodes, trie: ItemTrie) -> Bool:
    """[B] requests with a step left whose frontier nodes are all evaluated."""
    request = np.arange(len(frontier.depth))[:, None]
    evaluated = (known.find(request, frontier.nodes) >= 0) | (frontier.nodes < 0)
    return evaluated.all(axis=1) & (frontier.depth < trie.length)


def _step(frontier: Frontier, known: EvaluatedNodes, ready: Bool) -> Frontier:
    """The frontier one level deeper for the requests that are ready [B]; the others as they were."""
    request, rank = np.nonzero(ready[:, None] & (frontier.nodes >= 0))
    node, score = frontier.nodes[request, rank], frontier.scores[request, rank]
    which, child, child_score = known.children(known.find(request, node), node, score)
    batch, width = frontier.nodes.shape
    best = best_per_request(request[which], child_score, batch, width)[ready]
    nodes, scores = frontier.nodes.copy(), frontier.scores.copy()
    nodes[ready] = np.where(best >= 0, child[best], -1)
    scores[ready] = np.where(best >= 0, child_score[best], -np.inf)
    return Frontier(nodes, scores, frontier.depth + ready)
