"""The loop for one batch of requests: draft, verify, advance, until every frontier is at the leaves."""

from time import perf_counter

import numpy as np

from .drafting.drafter import Drafter, empty_tree, enumerated, merged
from .options import LOSSLESS
from .planning.policy import Course, Planning
from .search.evaluator import TreeEvaluator
from .search.trie_view import TrieView
from .search.verify import Verifier
from .stats import DecodeStats
from .types import Bool, DraftTree, Frontier, Hypotheses, Int64, NodeList, Round, Step, Verdict


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
        self._verdict: Verdict

    def run(self, width: Int64, keys: np.ndarray) -> Frontier:
        """The best `width` [B] leaves of each request, as the target's beam search finds them.

        keys [B]: what the roots are ranked by: 0, or where sampling any perturbed score. Requests whose scores are
        no numbers are given up at once (the target's `nodes.failed`) and get no leaves.
        """
        self.begin(width, keys)
        while self.running:
            self.round()
        return self.end()

    def begin(self, width: Int64, keys: np.ndarray) -> None:
        """Before the first round; see `run`."""
        self._start, self._earlier, self._joined = perf_counter(), len(self._stats.log or ()), False
        with self._stats.timed("planning"):
            self._course = self._planning.begin(width, self._target.prompt_tokens)
        self._steps: list[Step] = []
        self._look_from(beginning(width, keys))

    @property
    def running(self) -> bool:
        """Whether there is a round to come."""
        return len(self._verdict.missing) > 0

    @property
    def frontier(self) -> Frontier:
        """Where every request stands."""
        return self._verdict.frontier

    def round(self) -> None:
        """Draft, verify, advance."""
        before, missing = self._verdict.frontier, self._verdict.missing
        self._target.retain(before.active)
        self._drafter.retain(before.active)
        tree, enumerate = self._drafted(self._course, before)
        drafted = tree.nodes
        evaluated = self._target.evaluate(_both(missing, drafted))
        failed = self._target.nodes.failed
        failing = len(failed) > 0 and bool(before.active[failed].any())
        if failing:
            before = without(before, failed)
        self._verdict = verdict = self._verifier.verify(before, self._target.nodes, tree)
        self._steps += verdict.steps
        if not failing:  # else it is another frontier than was planned for
            with self._stats.timed("planning"):
                self._course.observe(before, tree, verdict)
        if self._rounds is not None:
            scores = self._target.nodes.path_scores(drafted)
            self._rounds.append(Round(before, tree, scores, evaluated, verdict, enumerate))
        if not self._reuse:
            self._target.nodes.forget()
            self._look_from(verdict.frontier)

    def reseat(self, kept: Int64, width: Int64, keys: np.ndarray) -> None:
        """Go on with the requests kept [B'], in this order, and behind them others, which begin (see `begin`).

        The evaluators, the view and the drafter have been reseated.
        """
        self._count()
        seconds, self._start = perf_counter() - self._start, perf_counter()
        with self._stats.timed("planning"):
            if not self._joined:
                self._course.leave(seconds)
            frontier = reseated(self._verdict.frontier, kept, beginning(width, keys))
            self._course = self._planning.resume(frontier.width, self._target.prompt_tokens)
        self._joined = True
        if self._stats.log:
            self._stats.log.clear()  # of calls that nothing is concluded from
        self._look_from(frontier)

    def give_up(self, requests: Int64) -> None:
        """Go on without some requests, which get no leaves."""
        self._look_from(without(self._verdict.frontier, requests))

    def end(self) -> Frontier:
        """After the last round."""
        self._count()
        with self._stats.timed("planning"):
            if not self._joined:
                self._course.end((self._stats.log or [])[self._earlier :], perf_counter() - self._start)
        return self._verdict.frontier

    def _look_from(self, frontier: Frontier) -> None:
        self._verdict = self._verifier.verify(frontier, self._target.nodes, self._nothing)

    def _count(self) -> None:
        self._stats.count(self._steps)
        self._steps = []

    def _drafted(self, course: Course, frontier: Frontier) -> tuple[DraftTree, Bool]:
        """What to evaluate ahead of need in this round, and the requests [B] for which that is all continuations."""
        with self._stats.timed("planning"):
            widths, enumerate = course.plan(frontier)
        tree = self._nothing
        if not self._has_room(frontier, widths):
            widths, enumerate = np.zeros_like(widths), np.zeros_like(enumerate)
        if widths.any():
            tree = self._drafter.propose(frontier, self._target.nodes, widths)
            self._stats.nodes_drafted += len(tree.nodes)
        if enumerate.any():
            whole = merged(tree, enumerated(tree.mode, frontier, self._view, enumerate))
            if not self._has_room(frontier, np.bincount(whole.nodes.request)[:, None]):
                return tree, np.zeros_like(enumerate)
            tree = whole
        return tree, enumerate

    def _has_room(self, frontier: Frontier, drafted: Int64) -> bool:
        """Whether memory lets so many nodes [B, levels] be drafted beside all that will be needed."""
        if not (self._target.limited and self._drafter.mode in LOSSLESS):  # others' lists depend on what is drafted
            return True
        nodes = np.diff(self._view.trie.level_start)[int(frontier.depth.min(initial=0)) : -1]
        needed = int(np.minimum(nodes, frontier.width.max(initial=0)).sum())
        return self._target.has_room(needed + int(drafted.sum(axis=1).max(initial=0)))


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


def reseated(frontier: Frontier, kept: Int64, others: Frontier) -> Frontier:
    """The requests kept [B'] of a frontier, in this order, and behind them the others."""
    widest = max(int(frontier.width[kept].max(initial=1)), others.running.nodes.shape[1])
    running, finished = (
        Hypotheses(
            _beneath(old.nodes[kept], new.nodes, widest, -1),
            _beneath(old.scores[kept], new.scores, widest, -np.inf),
            _beneath(old.keys[kept], new.keys, widest, -np.inf),
        )
        for old, new in ((frontier.running, others.running), (frontier.finished, others.finished))
    )
    depth = np.append(frontier.depth[kept], others.depth)
    return Frontier(running, finished, depth, np.append(frontier.width[kept], others.width))


def _beneath(a: np.ndarray, b: np.ndarray, width: int, nothing: float) -> np.ndarray:
    """Two tables as one of `width` columns; what is not there is nothing."""
    both = np.full((len(a) + len(b), width), nothing, a.dtype)
    columns = min(a.shape[1], width)
    both[: len(a), :columns], both[len(a) :, : b.shape[1]] = a[:, :columns], b
    return both


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
