"""Drafters: what the target will probably need next, as a tree."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from ..catalog.trie import ItemTrie
from .beam import best_per_request
from .evaluator import TreeEvaluator
from .nodes import EvaluatedNodes
from .types import Bool, DraftShape, DraftTree, Float64, Frontier, Int64, NodeList

EMPTY = NodeList(np.empty(0, np.int64), np.empty(0, np.int64))


class Beams(NamedTuple):
    """The beams of one drafted level, flat and grouped by request."""

    request: Int64  # [n]
    node: Int64
    score: Float64
    exact: Bool  # every score on the path is the target's


class Drafter(ABC):
    """Proposes nodes for one batch; made anew for each batch."""

    @abstractmethod
    def propose(self, frontier: Frontier, known: EvaluatedNodes) -> DraftTree:
        """Nodes to evaluate beside the frontier's own; `known` is what the target has evaluated."""

    @abstractmethod
    def retain(self, active: Bool) -> None:
        """Requests that are not active [B] are finished."""

    @property
    @abstractmethod
    def calls(self) -> Int64:
        """[B] calls of a draft engine in which each request had tokens."""


class NoDrafter(Drafter):
    """Proposes nothing: the loop is plain beam search."""

    def __init__(self, batch: int) -> None:
        self._calls = np.zeros(batch, np.int64)

    def propose(self, frontier: Frontier, known: EvaluatedNodes) -> DraftTree:
        return DraftTree(EMPTY)

    def retain(self, active: Bool) -> None:
        pass

    @property
    def calls(self) -> Int64:
        return self._calls


class ModelDrafter(Drafter):
    """Beam search by a draft model from the verified frontier, `shape.width` nodes at each of `shape.length` depths.

    It starts from the target's scores (as AtSpeed's draft does, arXiv 2410.05165), and where the target
    has evaluated a node its scores are used instead of the draft's: the draft then says only what the
    target has not said.
    """

    def __init__(self, evaluator: TreeEvaluator, trie: ItemTrie, shape: DraftShape) -> None:
        self._evaluator, self._trie, self._shape = evaluator, trie, shape

    def propose(self, frontier: Frontier, known: EvaluatedNodes) -> DraftTree:
        # A node without children below it to choose from is a leaf: never drafted, never evaluated.
        request, rank = np.nonzero((frontier.nodes >= 0) & (frontier.depth < self._trie.length - 1)[:, None])
        beams = Beams(request, frontier.nodes[request, rank], frontier.scores[request, rank], np.ones(len(rank), bool))
        levels = []
        for _ in range(self._shape.length):
            if not len(beams.node):
                break
            beams = self._descend(beams, known, *frontier.nodes.shape)
            levels.append((beams.request, beams.node))
            inner = self._trie.depth[beams.node] < self._trie.length - 1
            beams = Beams(beams.request[inner], beams.node[inner], beams.score[inner], beams.exact[inner])
        if not levels:
            return DraftTree(EMPTY)
        request, node = (np.concatenate(part) for part in zip(*levels, strict=True))
        new = known.find(request, node) < 0
        return DraftTree(NodeList(request[new], node[new]))

    def retain(self, active: Bool) -> None:
        self._evaluator.retain(active)

    @property
    def calls(self) -> Int64:
        return self._evaluator.calls

    def _descend(self, beams: Beams, known: EvaluatedNodes, batch: int, width: int) -> Beams:
        """The best children of a level's beams; `width` is the frontier's."""
        request, node, score, exact = beams
        guess = known.find(request, node) < 0
        self._evaluator.evaluate(NodeList(request[guess], node[guess]))
        own = self._evaluator.nodes
        parts = []
        for source, mine in ((known, np.flatnonzero(~guess)), (own, np.flatnonzero(guess))):
            if len(mine):
                entries = source.find(request[mine], node[mine])
                which, child, child_score = source.children(entries, node[mine], score[mine])
                parts.append((mine[which], child, child_score))
        parent, child, child_score = (np.concatenate(part) for part in zip(*parts, strict=True))
        if len(parts) > 1:
            order = np.argsort(parent, kind="stable")
            parent, child, child_score = parent[order], child[order], child_score[order]
        owner, exact = request[parent], (exact & ~guess)[parent]
        if exact.any():  # what ranks below the frontier's width among true scores will hardly be needed
            sure = np.flatnonzero(exact)
            best = best_per_request(owner[sure], child_score[sure], batch, width)
            chosen = ~exact
            chosen[sure[best[best >= 0]]] = True
            owner, child, child_score, exact = owner[chosen], child[chosen], child_score[chosen], exact[chosen]
        best = best_per_request(owner, child_score, batch, min(self._shape.width, len(child)))
        kept = best[best >= 0]
        return Beams(owner[kept], child[kept], child_score[kept], exact[kept])
