"""Verification: how far the evaluated nodes let every request's frontier advance. Pure: no engine, no cache."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..types import Beams, Bool, DraftTree, Frontier, Hypotheses, Int64, Mode, NodeList, Step, Verdict
from .beam import beams_of, best_per_request
from .nodes import EvaluatedNodes
from .trie_view import TrieView


class Choice(NamedTuple):
    """What goes on from a step's candidates, as indices into them."""

    running: Int64  # [B, W] best first, -1 where none
    finished: Int64  # [B, W] leaves that finish in this step
    stand_ins: Bool | None = None  # [B, W] of `running`


Chooser = Callable[[Beams, Frontier, Bool], Choice]  # the candidates, the frontier they come from, who steps [B]


class Verifier(ABC):
    """One rule of verification."""

    def __init__(self, mode: Mode, view: TrieView) -> None:
        self.mode, self.view = mode, view

    def verify(self, frontier: Frontier, known: EvaluatedNodes, tree: DraftTree) -> Verdict:
        """Step every frontier as far as all of its nodes are evaluated. `tree` is what was drafted from `frontier`.

        Raises ValueError where it was drafted for another rule.
        """
        if tree.mode != self.mode:
            raise ValueError(f"got a tree drafted for {tree.mode} verification, expected one for {self.mode}")
        return advance(frontier, known, self._chooser(frontier, known, tree))

    @abstractmethod
    def _chooser(self, frontier: Frontier, known: EvaluatedNodes, tree: DraftTree) -> Chooser:
        """Chooses what goes on from each step's candidates in this round."""


class StrictVerifier(Verifier):
    """Exactly the target's own beam search; by perturbed scores, exactly stochastic beam search (mode "sampled").

    After AtSpeed's strict top-K verification (arXiv 2410.05165), except that a level with a missing node
    is not rejected: the frontier waits there, and what was evaluated beyond it stays valid.
    """

    def _chooser(self, frontier: Frontier, known: EvaluatedNodes, tree: DraftTree) -> Chooser:
        return lambda kids, at, ready: best(kids, at, self.view)


class TolerantVerifier(Verifier):
    """Strict, but evaluated nodes just outside the top K may stand in for missing ones inside it.

    They do where every missing node of a step finds one that scores at most `slack` nats lower, so that
    the round goes on; otherwise the step is the strict one. The i-th best missing node is matched with
    the i-th best evaluated outsider, which succeeds if any matching does.
    """

    def __init__(self, view: TrieView, slack: float) -> None:
        super().__init__("tolerant", view)
        self._slack = slack

    def _chooser(self, frontier: Frontier, known: EvaluatedNodes, tree: DraftTree) -> Chooser:
        return lambda kids, at, ready: self._substituted(kids, at, known)

    def _substituted(self, kids: Beams, frontier: Frontier, known: EvaluatedNodes) -> Choice:
        strict = best(kids, frontier, self.view)
        chosen, batch = strict.running, len(frontier.depth)
        missing: Bool = (chosen >= 0) & known.lacks(kids.request[chosen], kids.node[chosen])
        if not missing.any() or self._slack == 0:
            return strict
        outside = ~self.view.is_leaf(kids.node)
        outside[chosen[chosen >= 0]] = False
        outside &= np.isin(kids.request, np.flatnonzero(missing.any(axis=1)))
        candidates = np.flatnonzero(outside)
        request, node = kids.request[candidates], kids.node[candidates]
        candidates = candidates[~known.lacks(request, node)]
        count = missing.sum(axis=1)
        found = best_per_request(kids.request[candidates], kids.key[candidates], batch, count)
        if found.shape[1] < int(count.max()) or not len(candidates):
            return strict
        reserve = np.where(found >= 0, candidates[found], -1)  # [B, most missing]
        order = np.argsort(~missing, axis=1, kind="stable")  # the missing ones' ranks first, best first
        order = order[:, : reserve.shape[1]]
        asked = np.arange(reserve.shape[1]) < count[:, None]
        lost = np.take_along_axis(chosen, order, axis=1)
        near = (reserve >= 0) & (kids.key[lost] - kids.key[reserve] <= self._slack)
        granted = (near | ~asked).all(axis=1) & (count > 0)
        owner, place = np.nonzero(asked & granted[:, None])
        running, stand_ins = chosen.copy(), np.zeros(chosen.shape, bool)
        running[owner, order[owner, place]] = reserve[owner, place]
        stand_ins[owner, order[owner, place]] = True
        rank = np.argsort(np.where(running >= 0, -kids.key[running], np.inf), axis=1, kind="stable")
        return Choice(
            np.take_along_axis(running, rank, axis=1), strict.finished, np.take_along_axis(stand_ins, rank, axis=1)
        )


def best(kids: Beams, frontier: Frontier, view: TrieView) -> Choice:
    """Beam search's step, with `generate`'s rule for identifiers of unequal length.

    The K best prefixes go on; a leaf finishes where it is among the K best of all candidates.
    """
    batch, width = len(frontier.depth), frontier.width
    leaf = view.is_leaf(kids.node)
    if not leaf.any():
        return Choice(best_per_request(kids.request, kids.key, batch, width), np.full((batch, 1), -1))
    top = best_per_request(kids.request, kids.key, batch, width)
    if leaf.all():
        return Choice(np.full((batch, 1), -1), top)
    inner = np.flatnonzero(~leaf)
    running = best_per_request(kids.request[inner], kids.key[inner], batch, width)
    return Choice(np.where(running >= 0, inner[running], -1), np.where(leaf[top], top, -1))


def advance(frontier: Frontier, known: EvaluatedNodes, choose: Chooser) -> Verdict:
    """Step every frontier as far as all of its nodes are evaluated, by a rule."""
    request = np.arange(len(frontier.depth))[:, None]
    looked = known.looked_up(request, frontier.running.nodes)
    lacking, steps = looked.lacking, []
    while (ready := frontier.active & ~lacking.any(axis=1)).any():
        running = frontier.running
        chosen = ready[:, None] & (running.nodes >= 0)
        beams = beams_of(running.nodes, running.scores, running.keys, chosen)
        _, kids = known.children(beams, looked.entry[chosen])
        choice = choose(kids, frontier, ready)
        frontier = _stepped(frontier, kids, choice, ready)
        nodes = frontier.running.nodes
        looked = known.looked_up(request, nodes)
        lacking = looked.lacking
        moved = ready & frontier.active
        needed = looked.needed & moved[:, None]
        stand_ins = np.zeros(nodes.shape, bool)
        if choice.stand_ins is not None:
            stand_ins[:, : choice.stand_ins.shape[1]] = choice.stand_ins
        steps.append(Step(moved, frontier.depth, nodes, needed, needed & ~lacking, stand_ins))
    owner, rank = np.nonzero(lacking)
    return Verdict(frontier, NodeList(owner, frontier.running.nodes[owner, rank]), tuple(steps))


def _stepped(frontier: Frontier, kids: Beams, choice: Choice, ready: Bool) -> Frontier:
    """The frontier one level deeper for the requests that are ready [B]; the others as they were."""
    running = _replaced(frontier.running, kids, choice.running, ready)
    finished = frontier.finished
    if (choice.finished >= 0).any():
        finished = _with(finished, kids, choice.finished, frontier.width)
    if (finished.nodes >= 0).any():
        # A key never rises along a path: what ranks behind K finished ones cannot become one of them.
        worst = finished.keys[np.arange(len(ready)), frontier.width - 1]
        hopeless = ready & (running.keys[:, 0] <= worst)
        nothing = np.full(choice.running.shape, -1)
        running = _replaced(running, kids, nothing, hopeless)
    return Frontier(running, finished, frontier.depth + ready, frontier.width)


def _replaced(hypotheses: Hypotheses, kids: Beams, chosen: Int64, where: Bool) -> Hypotheses:
    """The chosen kids [B, <= W] in place of the hypotheses of some requests [B]."""
    batch, width = hypotheses.nodes.shape
    index = np.full((batch, width), -1)
    index[:, : chosen.shape[1]] = chosen[:, :width]
    new = _picked(kids, index)
    if where.all():
        return new
    stepped = where[:, None]
    return Hypotheses(
        np.where(stepped, new.nodes, hypotheses.nodes),
        np.where(stepped, new.scores, hypotheses.scores),
        np.where(stepped, new.keys, hypotheses.keys),
    )


def _picked(kids: Beams, chosen: Int64) -> Hypotheses:
    """The chosen kids [B, w] as hypotheses."""
    if not len(kids.node):
        nothing = np.full(chosen.shape, -np.inf)
        return Hypotheses(np.full(chosen.shape, -1), nothing, nothing)
    there = chosen >= 0
    scores = np.where(there, kids.score[chosen], -np.inf)
    keys = scores if kids.key is kids.score else np.where(there, kids.key[chosen], -np.inf)
    return Hypotheses(np.where(there, kids.node[chosen], -1), scores, keys)


def _with(finished: Hypotheses, kids: Beams, chosen: Int64, width: Int64) -> Hypotheses:
    """The best `width` [B] of the finished hypotheses and the chosen kids [B, <= W]."""
    new = _picked(kids, chosen)
    keys = np.concatenate([finished.keys, new.keys], axis=1)
    order = (-keys).argsort(axis=1, kind="stable")[:, : finished.nodes.shape[1]]
    row, beyond = np.arange(len(order))[:, None], np.arange(order.shape[1]) >= width[:, None]
    return Hypotheses(
        np.where(beyond, -1, np.concatenate([finished.nodes, new.nodes], axis=1)[row, order]),
        np.where(beyond, -np.inf, np.concatenate([finished.scores, new.scores], axis=1)[row, order]),
        np.where(beyond, -np.inf, keys[row, order]),
    )
