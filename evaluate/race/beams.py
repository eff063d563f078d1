"""Beam search as serving stacks do it: a row a beam, and caches that follow their beams after every call."""

from collections.abc import Sequence
from typing import final

import numpy as np

from ...catalog.errors import EngineError
from ...catalog.finite import are_logprobs
from ...catalog.trie import ItemTrie
from ...engines.base import ForwardInputs, causal
from ...engines.reading import padded_prompts
from ...runtime.search.beam import best_per_request
from ...runtime.search.prefix import SharedPrefix
from ...runtime.search.scoring import Scoring
from ...runtime.timers import Timers
from ...runtime.types import Float64, Int64

NONE = -np.inf


class BeamSeconds(Timers):
    """Where a search's time went."""

    def __init__(self) -> None:
        self.prompt_seconds = self.target_seconds = self.total_seconds = 0.0
        self.calls = self.nodes = 0  # summed over requests


@final
class ReorderedBeams:
    """Searches with an engine and a trie; all rows stay until the batch is done, as shapes do in such a stack.

    A beginning that all prompts share is computed once, as for our loop.
    """

    def __init__(self, prefix: SharedPrefix, trie: ItemTrie, scoring: Scoring) -> None:
        self._prefix, self._engine, self._trie, self._scoring = prefix, prefix.engine, trie, scoring

    def __call__(self, prompts: Sequence[Int64], k: int, spent: BeamSeconds) -> list[list[tuple[int, float]]]:
        """The k best leaves of every prompt with their scores, best first; it ends as `generate` does."""
        batch, width = len(prompts), min(k, self._trie.identifiers)
        lengths = self._prefix.lengths(prompts)
        with spent.timed("total"):
            with spent.timed("prompt"):
                cache = self._prefix.opened(prompts)
                inputs = prompt_inputs(self._prefix.decoded(prompts), self._prefix.length)
                logprobs = self._engine.forward(inputs, cache)[:, 0]
            spent.calls += batch
            beams, slots = _Beams(batch, width), list[int]()
            parent = beams.step(self._trie, self._scoring, logprobs)
            while beams.running.any():
                slots.append(cache.length)
                inputs = self._step_inputs(beams.node, np.repeat(lengths, width), slots)
                with spent.timed("target"):
                    cache.keep(parent if len(slots) > 1 else parent // width)  # the prompts' cache has a row a request
                    logprobs = self._engine.forward(inputs, cache)[:, 0]
                spent.calls, spent.nodes = spent.calls + batch, spent.nodes + batch * width
                parent = beams.step(self._trie, self._scoring, logprobs)
        return beams.answers()

    def _step_inputs(self, node: Int64, lengths: Int64, slots: Sequence[int]) -> ForwardInputs:
        """One token a row, which sees its prompt and the row's own in `slots`; dead rows have any token."""
        rows, depth = len(lengths), len(slots)
        tokens = self._trie.tokens(np.where(node.ravel() > 0, node.ravel(), 1))
        visible = np.broadcast_to(np.array(slots), (rows, 1, depth)).copy()
        return ForwardInputs(
            tokens[:, None], (lengths + depth - 1)[:, None], lengths[:, None], visible, np.zeros((rows, 1), np.int64)
        )


def prompt_inputs(prompts: Sequence[Int64], past: int) -> ForwardInputs:
    """The call that brings what is to be decoded of prompts behind `past` tokens that are cached."""
    ids, lengths = padded_prompts(prompts)
    positions = np.broadcast_to(past + np.arange(ids.shape[1]), ids.shape).copy()
    return ForwardInputs(ids, positions, *causal(past, ids.shape[1], len(prompts)), lengths[:, None] - 1)


class _Beams:
    """[B, W] beams of a batch, the best first; -1 where there is none."""

    def __init__(self, batch: int, width: int) -> None:
        self.node = np.full((batch, width), -1, np.int64)
        self.node[:, 0] = 0
        self.score = np.where(self.node == 0, 0.0, NONE)
        self.leaf, self.leaf_score = np.full((batch, width), -1, np.int64), np.full((batch, width), NONE)

    @property
    def running(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
        return self.node >= 0

    def step(self, trie: ItemTrie, scoring: Scoring, logprobs: np.ndarray) -> Int64:
        """One token further, by the scores [rows, C] of the beams' rows (at the root: a row a request).

        Returns the row [B * W] that every beam goes on from.
        """
        batch, width = self.node.shape
        rows = np.flatnonzero(self.running)
        which, child = trie.children(self.node.ravel()[rows])
        at = rows[which] // width if len(logprobs) == batch else rows[which]
        first = np.flatnonzero(np.diff(which, prepend=-1))
        score = self.score.ravel()[rows][which] + scoring(logprobs[at, trie.column[child]].astype(np.float64), first)
        if not are_logprobs(score):
            raise EngineError(
                "The target's engine gives NaN or infinity as a log-probability. Build it again, in bf16 or fp32."
            )
        request, leaf = rows[which] // width, trie.child_count[child] == 0
        best = best_per_request(request, score, batch, np.full(batch, width))
        ends = np.zeros(len(child), bool)
        ends[best[best >= 0]] = True
        self._finish(request, child, score, ends & leaf)
        onward = np.flatnonzero(~leaf)
        best = best_per_request(request[onward], score[onward], batch, np.full(batch, width))
        return self._go_on(child[onward], score[onward], rows[which][onward], best)

    def _finish(self, request: Int64, child: Int64, score: Float64, ends: np.ndarray) -> None:
        """Keep the best of what has finished before and now."""
        batch, width = self.leaf.shape
        owner = np.concatenate([np.repeat(np.arange(batch), width), request[ends]])
        leaf, scores = (
            np.concatenate(pair) for pair in ((self.leaf.ravel(), child[ends]), (self.leaf_score.ravel(), score[ends]))
        )
        order = np.argsort(owner, kind="stable")
        best = order[best_per_request(owner[order], scores[order], batch, np.full(batch, width))]
        self.leaf, self.leaf_score = leaf[best], scores[best]

    def _go_on(self, child: Int64, score: Float64, row: Int64, best: Int64) -> Int64:
        """Take up the best that have not finished, unless their request is done."""
        batch, width = best.shape
        self.node, self.score = np.full((batch, width), -1, np.int64), np.full((batch, width), NONE)
        parent, there = np.repeat(np.arange(batch) * width, width).reshape(batch, width), best >= 0
        self.node[there], self.score[there] = child[best[there]], score[best[there]]
        parent[there] = row[best[there]]
        done = (self.leaf[:, -1] >= 0) & (self.score[:, 0] <= self.leaf_score[:, -1])
        self.node[done] = -1
        return parent.ravel()

    def answers(self) -> list[list[tuple[int, float]]]:
        found = zip(self.leaf.tolist(), self.leaf_score.tolist(), strict=True)
        return [[pair for pair in zip(*each, strict=True) if pair[0] >= 0] for each in found]
