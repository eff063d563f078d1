"""The loop for one batch of requests: draft, verify, advance, until every frontier is at the leaves."""

from time import perf_counter

import numpy as np

from .drafting.drafter import Drafter, empty_tree, enumerated, merged
from .planning.policy import Course, Planning
from .search.evaluator import TreeEvaluator
from .search.trie_view import TrieView
from .search.verify import Verifier
from .stats import DecodeStats
from .types import Bool, DraftTree, Frontier, Hypotheses, Int64, NodeList, Round, Step


class Session:
    """One batch's speculative beam search; where nothing is drafted it is plain beam search.

    `reuse=False` forgets all evaluated nodes after every round: AtSpeed's all-or-nothing rule, kept for
    comparison only. `rounds` collects what happened, if it is a list.
    """

    def __init__(
        self,
        target: TreeEvaluator,
        drafter: Drafter,
        verifier: Verifier,
        planning: Planning,
        view: TrieView,
        stats: DecodeStats,
        *,
        reuse: bool = True,
        rounds: list[Round] | None = None,
    ) -> None:
        self._target, self._drafter, self._verifier, self._planning = target, drafter, verifier, planning
        self._view, self._stats, self._reuse, self._rounds = view, stats, reuse, rounds
        self._nothing = empty_tree(drafter.mode)

    def run(self, width: Int64, keys: np.ndarray) -> Frontier:
        """The best `width` [B] leaves of each request, as the target's beam search finds them.

        keys [B]: what the roots are ranked by: 0, or where sampling any perturbed score. Requests whose scores are
        no numbers are given up at once (the target's `nodes.failed`) and get no leaves.
        """
        start, earlier = perf_counter(), len(self._stats.log or ())
        with self._stats.timed("planning"):
            course = self._planning.begin(width, self._target.prompt_tokens)
        verdict = self._verifier.verify(beginning(width, keys), self._target.nodes, self._nothing)
        steps: list[Step] = []
        while len(verdict.missing):
            before, missing = verdict.frontier, verdict.missing
            self._target.retain(before.active)
            self._drafter.retain(before.active)
            tree, enumerate = self._drafted(course, before)
            drafted = tree.nodes
            evaluated = self._target.evaluate(_both(missing, drafted))
            failed = self._target.nodes.failed
            failing = len(failed) > 0 and bool(before.active[failed].any())
            if failing:
                before = without(before, failed)
            verdict = self._verifier.verify(before, self._target.nodes, tree)
            steps += verdict.steps
            if not failing:  # else it is another frontier than was planned for
                with self._stats.timed("planning"):
                    course.observe(before, tree, verdict)
            if self._rounds is not None:
                scores = self._target.nodes.path_scores(drafted)
                self._rounds.append(Round(before, tree, scores, evaluated, verdict, enumerate))
            if not self._reuse:
                self._target.nodes.forget()
                verdict = self._verifier.verify(verdict.frontier, self._target.nodes, self._nothing)
        self._stats.count(steps)
        with self._stats.timed("planning"):
            course.end((self._stats.log or [])[earlier:], perf_counter() - start)
        return verdict.frontier

    def _drafted(self, course: Course, frontier: Frontier) -> tuple[DraftTree, Bool]:
        """What to evaluate ahead of need in this round, and the requests [B] for which that is all continuations."""
        with self._stats.timed("planning"):
            widths, enumerate = course.plan(frontier)
        tree = self._nothing
        if widths.any():
            tree = self._drafter.propose(frontier, self._target.nodes, widths)
            self._stats.nodes_drafted += len(tree.nodes)
        if enumerate.any():
            tree = merged(tree, enumerated(tree.mode, frontier, self._view, enumerate))
        return tree, enumerate


def _both(a: NodeList, b: NodeList) -> NodeList:
    """Both lists as one."""
    if not len(b):
        return a
    return NodeList(np.concatenate([a.request, b.request]), np.concatenate([a.node, b.node]))


def without(frontier: Frontier, requests: Int64) -> Frontier:
    """The frontier with some requests done, without an answer; the others as they were."""
    gone = np.zeros(len(frontier.depth), bool)
    gone[requests] = True
    running, finished = (
        Hypotheses(
            np.where(gone[:, None], -1, old.nodes),
            np.where(gone[:, None], -np.inf, old.scores),
            np.where(gone[:, None], -np.inf, old.keys),
        )
        for old in (frontier.running, frontier.finished)
    )
    return Frontier(running, finished, frontier.depth, frontier.width)


def beginning(width: Int64, keys: np.ndarray) -> Frontier:
    """Every request at the root (those of width 0 are done before they begin)."""
    batch, widest = len(width), max(int(width.max(initial=0)), 1)
    nodes = np.full((batch, widest), -1, np.int64)
    nodes[width > 0, 0] = 0
    there = nodes == 0
    running = Hypotheses(nodes, np.where(there, 0.0, -np.inf), np.where(there, keys[:, None], -np.inf))
    empty = np.full((batch, widest), -np.inf)
    finished = Hypotheses(np.full((batch, widest), -1, np.int64), empty, empty)
    return Frontier(running, finished, np.zeros(batch, np.int64), width)
