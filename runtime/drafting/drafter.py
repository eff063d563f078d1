"""Drafters: what the target will probably need next, as a tree."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..search.beam import beams_of, best_per_request, taken
from ..search.nodes import EvaluatedNodes
from ..search.noise import DRAFT, STREAMS, Noise
from ..search.trie_view import TrieView
from ..types import Beams, Bool, DraftTree, Frontier, Int64, Mode, NodeList, Proposals, Request
from .guesses import Guesses


class Level(NamedTuple):
    """One drafted level: its beams, best first in every request; if sampled, all that they were drawn from."""

    beams: Beams
    exact: Bool  # [n] every score on the path is the target's
    candidates: Beams | None = None
    drawn: Bool | None = None  # [m] candidates that were drawn


class Drafter(ABC):
    """Proposes nodes for one batch; made anew for each batch."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode

    @abstractmethod
    def propose(self, frontier: Frontier, known: EvaluatedNodes, widths: Int64) -> DraftTree:
        """Nodes to evaluate beside the frontier's own: `widths` [B, levels] of every request at each level.

        `known` is what the target has evaluated.
        """

    @abstractmethod
    def retain(self, active: Bool) -> None:
        """Requests that are not active [B] are finished."""

    @abstractmethod
    def reseat(self, kept: Int64, requests: Sequence[Request]) -> None:
        """Draft for the requests kept [B'], in this order, and behind them for these others, from now on."""

    @property
    @abstractmethod
    def calls(self) -> Int64:
        """[B] calls of a draft engine in which each request had tokens."""


class NoDrafter(Drafter):
    """Proposes nothing: the loop is plain beam search."""

    def __init__(self, mode: Mode, batch: int) -> None:
        super().__init__(mode)
        self._calls = np.zeros(batch, np.int64)

    def propose(self, frontier: Frontier, known: EvaluatedNodes, widths: Int64) -> DraftTree:
        return empty_tree(self.mode)

    def retain(self, active: Bool) -> None:
        pass

    def reseat(self, kept: Int64, requests: Sequence[Request]) -> None:
        self._calls = np.zeros(len(kept) + len(requests), np.int64)

    @property
    def calls(self) -> Int64:
        return self._calls


class BeamDrafter(Drafter):
    """Beam search by guesses from the verified frontier.

    It starts from the target's scores (as AtSpeed's draft does, arXiv 2410.05165), and where the target
    has evaluated a node its scores are used instead of guesses: these say only what the target has not said.
    """

    def __init__(self, mode: Mode, guesses: Guesses, view: TrieView) -> None:
        super().__init__(mode)
        self._guesses, self._view = guesses, view

    def propose(self, frontier: Frontier, known: EvaluatedNodes, widths: Int64) -> DraftTree:
        running = frontier.running
        beams = beams_of(running.nodes, running.scores, running.keys, running.nodes >= 0)
        levels: list[Level] = []
        exact = np.ones(len(beams.node), bool)
        for width in widths.T:
            wanted = (width[beams.request] > 0) & self._worthwhile(beams)
            if not wanted.any():
                break
            children, exact = self._children(taken(beams, wanted), exact[wanted], known)
            level = self._choose(children, exact, frontier, width)
            if level is None:
                break
            levels.append(level)
            inner = ~self._view.is_leaf(level.beams.node)
            beams, exact = taken(level.beams, inner), level.exact[inner]
        return _tree(self.mode, levels, len(running.nodes))

    def retain(self, active: Bool) -> None:
        self._guesses.retain(active)

    def reseat(self, kept: Int64, requests: Sequence[Request]) -> None:
        self._guesses.reseat(kept, requests)

    @property
    def calls(self) -> Int64:
        return self._guesses.calls

    def _worthwhile(self, beams: Beams) -> Bool:
        """[n] beams whose children are worth a guess."""
        return self._view.trie.leads_on(beams.node)

    def _children(self, beams: Beams, exact: Bool, known: EvaluatedNodes) -> tuple[Beams, Bool]:
        """Scored children of a level's beams, parents in order, and which of them have the target's scores."""
        guess = known.lacks(beams.request, beams.node)
        sources: tuple[tuple[Int64, EvaluatedNodes | Guesses], ...]
        sources = (np.flatnonzero(~guess), known), (np.flatnonzero(guess), self._guesses)
        parts = []
        for mine, source in sources:
            if len(mine):
                which, child, logprob = source.logprobs(NodeList(beams.request[mine], beams.node[mine]))
                parts.append((mine[which], child, logprob))
        parent, child, logprob = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(parent, kind="stable")
        children = known.extended(beams, parent[order], child[order], logprob[order])
        parent = parent[order]
        return children, (exact & ~guess)[parent]

    def _choose(self, children: Beams, exact: Bool, frontier: Frontier, width: Int64) -> Level | None:
        """The best children of every request that need scores or lead to some; None where there is none.

        What nobody believes in, or a broken engine says nothing of, is not drafted.
        """
        inner = ~self._view.is_leaf(children.node) & (children.key > -np.inf)
        children, exact = taken(children, inner), exact[inner]
        if exact.any():  # what ranks below the frontier's width among true scores will hardly be needed
            sure = np.flatnonzero(exact)
            best = best_per_request(children.request[sure], children.key[sure], len(width), frontier.width)
            chosen = ~exact
            chosen[sure[best[best >= 0]]] = True
            children, exact = taken(children, chosen), exact[chosen]
        best = best_per_request(children.request, children.key, len(width), width)
        kept = best[best >= 0]
        return Level(taken(children, kept), exact[kept]) if len(kept) else None


class SampledDrafter(BeamDrafter):
    """Draws its beams instead of taking the best: for relaxed verification (AtSpeed's second mode).

    A level is drawn without replacement from the softmax of the summed log-probabilities, divided by
    the temperature, over all (beam, token).
    """

    def __init__(self, guesses: Guesses, view: TrieView, noise: Noise, temperature: float) -> None:
        super().__init__("relaxed", guesses, view)
        self._noise, self._temperature = noise, temperature

    def _worthwhile(self, beams: Beams) -> Bool:
        # All candidates take part in a draw, unless all are leaves: the target says it all by then.
        on = np.bincount(beams.request, self._view.trie.leads_on(beams.node)) > 0
        worth: Bool = on[beams.request]
        return worth

    def _choose(self, children: Beams, exact: Bool, frontier: Frontier, width: Int64) -> Level | None:
        believed = children.score > -np.inf
        children, exact = taken(children, believed), exact[believed]
        if not len(children.node):
            return None
        children = children._replace(key=children.score / self._temperature)
        stream = DRAFT + STREAMS * (1 + frontier.depth[children.request])  # a node may be drafted anew in later rounds
        noise = self._noise.gumbel(children.request, children.node, stream)
        best = best_per_request(children.request, children.key + noise, len(width), width)
        kept = best[best >= 0]
        drawn = np.zeros(len(children.node), bool)
        drawn[kept] = True
        return Level(taken(children, kept), exact[kept], children, drawn)


def enumerated(mode: Mode, frontier: Frontier, view: TrieView, chosen: Bool) -> DraftTree:
    """All children of the frontier nodes of the chosen [B] requests that need scores: a level nobody can miss."""
    running = frontier.running
    request, rank = np.nonzero(chosen[:, None] & (running.nodes >= 0))
    which, child = view.children(request, running.nodes[request, rank])
    wanted = view.needs_scores(request[which], child)
    zeros = np.zeros(int(wanted.sum()))
    beams = Beams(request[which][wanted], child[wanted], zeros, zeros)
    return _tree(mode, [Level(beams, zeros > 0)] if len(zeros) else [], len(running.nodes))


def empty_tree(mode: Mode) -> DraftTree:
    """No nodes."""
    return _tree(mode, [], 0)


def merged(a: DraftTree, b: DraftTree) -> DraftTree:
    """Two trees of different requests as one."""
    if not len(a.nodes) or not len(b.nodes):
        return a if len(a.nodes) else b

    def both(x: Int64, y: Int64) -> Int64:
        return np.concatenate([x, y])

    nodes = NodeList(both(a.nodes.request, b.nodes.request), both(a.nodes.node, b.nodes.node))
    score = np.concatenate([a.score, b.score])
    return DraftTree(nodes, both(a.level, b.level), both(a.rank, b.rank), score, a.mode)


def _tree(mode: Mode, levels: Sequence[Level], batch: int) -> DraftTree:
    """Drafted levels as one flat tree, level by level."""
    nothing = np.empty(0, np.int64)
    if not levels:
        return DraftTree(NodeList(nothing, nothing), nothing, nothing, np.empty(0), mode)
    beams = Beams(*(np.concatenate(part) for part in zip(*(level.beams for level in levels), strict=True)))
    number = np.repeat(np.arange(1, len(levels) + 1), [len(level.beams.node) for level in levels])
    ranks = []
    for level in levels:
        count = np.bincount(level.beams.request, minlength=batch)
        ranks.append(np.arange(len(level.beams.node)) - (np.cumsum(count) - count)[level.beams.request])
    nodes = NodeList(beams.request, beams.node)
    return DraftTree(nodes, number, np.concatenate(ranks), beams.score, mode, _proposals(levels))


def _proposals(levels: Sequence[Level]) -> Proposals | None:
    candidates = [level.candidates for level in levels if level.candidates is not None]
    if not candidates:
        return None
    request, node, _, log_q = (np.concatenate(part) for part in zip(*candidates, strict=True))
    drawn = np.concatenate([level.drawn for level in levels if level.drawn is not None])
    return Proposals(NodeList(request, node), log_q, drawn)
