"""Verification: how far the evaluated nodes let every request's frontier advance. Pure: no engine, no cache."""

import numpy as np

from ..catalog.trie import ItemTrie
from .beam import best_per_request
from .nodes import EvaluatedNodes
from .types import Bool, Frontier, Int64, NodeList, Verdict


def verify_strict(frontier: Frontier, known: EvaluatedNodes, trie: ItemTrie) -> Verdict:
    """Step every frontier as far as all of its nodes are evaluated: exactly the target's own beam search.

    After AtSpeed's strict top-K verification (arXiv 2410.05165), except that a level with a missing node
    is not rejected: the frontier waits there, and what was evaluated beyond it stays valid.
    """
    needed, found, levels, levels_found = np.zeros((4, trie.length), np.int64)
    request = np.arange(len(frontier.depth))[:, None]
    entries = known.find(request, frontier.nodes)
    while (ready := _ready(frontier, entries, trie)).any():
        frontier = _step(frontier, entries, known, ready)
        entries = known.find(request, frontier.nodes)
        moved = ready & (frontier.depth < trie.length)
        depth = frontier.depth[moved]
        np.add.at(needed, depth, (frontier.nodes[moved] >= 0).sum(axis=1))
        np.add.at(found, depth, (entries[moved] >= 0).sum(axis=1))
        np.add.at(levels, depth, 1)
        np.add.at(levels_found, depth, _ready(frontier, entries, trie)[moved])
    missing = (frontier.nodes >= 0) & (entries < 0) & (frontier.depth < trie.length)[:, None]
    owner, rank = np.nonzero(missing)
    return Verdict(frontier, NodeList(owner, frontier.nodes[owner, rank]), needed, found, levels, levels_found)


def _ready(frontier: Frontier, entries: Int64, trie: ItemTrie) -> Bool:
    """[B] requests with a step left whose frontier nodes are all evaluated; entries [B, W], -1 where not."""
    ready: Bool = ((entries >= 0) | (frontier.nodes < 0)).all(axis=1) & (frontier.depth < trie.length)
    return ready


def _step(frontier: Frontier, entries: Int64, known: EvaluatedNodes, ready: Bool) -> Frontier:
    """The frontier one level deeper for the requests that are ready [B]; the others as they were."""
    request, rank = np.nonzero(ready[:, None] & (frontier.nodes >= 0))
    node, score = frontier.nodes[request, rank], frontier.scores[request, rank]
    which, child, child_score = known.children(entries[request, rank], node, score)
    batch, width = frontier.nodes.shape
    best = best_per_request(request[which], child_score, batch, width)[ready]
    nodes, scores = frontier.nodes.copy(), frontier.scores.copy()
    nodes[ready] = np.where(best >= 0, child[best], -1)
    scores[ready] = np.where(best >= 0, child_score[best], -np.inf)
    return Frontier(nodes, scores, frontier.depth + ready)
