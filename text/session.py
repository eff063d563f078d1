"""The loop for one batch of prompts: draft from pools, verify in one call, keep what passed, until all texts end."""

from collections.abc import Callable, Sequence

import numpy as np

from ..engines.base import Engine, ForwardInputs
from ..pools.texts.branches import Branches
from ..runtime.search.visibility import tree_visibility
from .draft import NOTHING, TextDrafter
from .ends import Ends
from .planning import Call, Spent, TextPlanning, first
from .stats import GenerationStats
from .types import Accepted, Bool, Finish, Int64, TextRequest, TextStats, TextVerification
from .verify import accept

Done = Callable[[int, Int64, Finish, TextStats], None]  # number of the request, its tokens, why it ended, what it cost
Failed = Callable[[int], None]  # number of a request for which the engine gave what is no log-probability


class TextSession:
    """One batch. Between calls every row of the cache is contiguous: `keep` compacts it to what passed, in one step.

    The last token of a text is not cached yet: the next call brings it, and the draft behind it. The first call
    brings the prompts.
    """

    def __init__(
        self,
        engine: Engine,
        requests: Sequence[TextRequest],
        drafter: TextDrafter,
        verification: TextVerification,
        ends: Ends,
        planning: TextPlanning,
        stats: GenerationStats,
    ) -> None:
        self._engine, self._drafter, self._verification = engine, drafter, verification
        self._ends, self._planning, self._stats = ends, planning, stats
        self._groups = [request.group for request in requests]
        self._prompt = np.array([len(request.prompt) for request in requests], np.int64)
        self._limit = np.array([request.limit for request in requests], np.int64)
        self._length = self._prompt.copy()  # tokens of every request so far, the prompt's included
        self._tokens = np.zeros((len(requests), int((self._prompt + self._limit).max())), np.int64)
        for number, request in enumerate(requests):
            self._tokens[number, : len(request.prompt)] = request.prompt
        self._calls, self._drafted, self._accepted = np.zeros((3, len(requests)), np.int64)
        self._active = np.arange(len(requests))  # request of every cache row
        self._cached = np.zeros(len(requests), np.int64)  # slots of every request, at the beginning of its row
        self._cache = engine.new_cache(len(requests))
        self._begun = False  # whether the prompts are cached

    def run(self, done: Done, failed: Failed) -> None:
        """Write all texts; each is handed over when it ends, or told to have failed."""
        stats = self._stats
        while len(self._active):
            before = stats.round_seconds, stats.target_seconds, stats.retrieval_seconds
            with stats.timed("round"):
                branches, passed, call, own = self._round(done, failed)
            after = stats.round_seconds, stats.target_seconds, stats.retrieval_seconds
            whole, engine, retrieval = (end - begin for begin, end in zip(before, after, strict=True))
            self._planning.observe(branches, passed, call, own, Spent(engine, retrieval, whole - engine - retrieval))

    def _round(self, done: Done, failed: Failed) -> tuple[Branches, Bool, Call, int]:
        """One call of the target.

        Returns what was drafted, which of it [n] is in texts now, the call's size and its tokens that are not drafted.
        """
        batch, past = len(self._active), self._cache.length
        own = 1 if self._begun else int(self._prompt.max())
        branches = NOTHING
        if self._planning.look():
            with self._stats.timed("retrieval"):
                branches = self._draft(Call(batch, past, own))
        rank = branches.rank
        slot = past + own + rank
        paths = _paths(branches, slot, batch, past if self._begun else -1)
        inputs = self._inputs(branches, rank, own, paths)
        with self._stats.timed("target"):
            logprobs = self._engine.forward(inputs, self._cache)
        with self._stats.timed("verification"):
            accepted = accept(logprobs, branches, 1 + rank, self._verification)
        passed = paths[np.where(accepted.node < 0, np.arange(batch), batch + accepted.node)]
        for number in self._active[accepted.failed].tolist():
            failed(number)
        self._advance(inputs.input_ids, past, passed, branches, accepted, done)
        used: Bool = (passed[branches.request] == slot[:, None]).any(axis=1)
        return branches, used, Call(batch, past, inputs.input_ids.shape[1]), own

    def _draft(self, call: Call) -> Branches:
        """A draft for every row, no deeper than what may still be written behind it: the target adds one token.

        call: its size without a draft.
        """
        mine = self._active
        contexts = [self._tokens[number, : self._length[number]] for number in mine.tolist()]
        room = self._prompt[mine] + self._limit[mine] - self._length[mine] - 1
        groups = [self._groups[number] for number in mine.tolist()]
        branches = self._drafter.propose(contexts, groups, room, fresh=not self._begun)
        return first(branches, self._planning.most(branches, call))

    def _inputs(self, branches: Branches, rank: Int64, own: int, paths: Int64) -> ForwardInputs:
        """One call: the prompts or the last tokens, `own` of a request, and behind them what is drafted."""
        mine, past, begun = self._active, self._cache.length, self._begun
        batch, length, query = len(mine), self._length[mine], own + rank
        prompt, drafted = 0 if begun else own, int(rank.max(initial=-1)) + 1
        ids = np.zeros((batch, own + drafted), np.int64)
        positions = np.zeros_like(ids)
        if begun:
            ids[:, 0], positions[:, 0] = self._tokens[mine, length - 1], length - 1
        else:
            ids[:, :own], positions[:, :own] = self._tokens[mine, :own], np.arange(own)
        ids[branches.request, query] = branches.token
        positions[branches.request, query] = (length - 1)[branches.request] + branches.depth
        cached = self._cached[mine] if begun else length
        row, place = np.append(np.arange(batch), branches.request), np.append(np.zeros(batch, np.int64), query)
        nodes = slice(None) if begun else slice(batch, None)  # a prompt's last token sees what is before it, as always
        visible = tree_visibility(
            cached, past, prompt, own + drafted - prompt, row[nodes], place[nodes], paths[nodes]
        )  # fmt: skip
        rows = np.zeros((batch, 1 + drafted), np.int64)
        rows[:, 0] = 0 if begun else length - 1
        rows[branches.request, 1 + rank] = query
        return ForwardInputs(ids, positions, *visible, rows)

    def _advance(self, ids: Int64, past: int, paths: Int64, branches: Branches, accepted: Accepted, done: Done) -> None:
        """Append what passed, hand over the texts that have ended, and keep the others' slots.

        ids [B, T]: the call's tokens; paths [B, 1 + D]: the slots of what passed, the last token's first.
        """
        mine = self._active
        passed = (paths[:, 1:] >= 0).sum(axis=1)
        self._calls[mine] += 1
        self._drafted[mine] += np.bincount(branches.request, minlength=len(mine))
        going = ~accepted.failed
        for row in np.flatnonzero(~accepted.failed).tolist():
            number = int(mine[row])
            count, start = int(passed[row]), int(self._length[number])
            self._tokens[number, start : start + count] = ids[row, paths[row, 1 : 1 + count] - past]
            self._tokens[number, start + count] = accepted.bonus[row]
            self._length[number] += count + 1
            going[row] = not self._ended(number, count, done)
        base, own = (self._cached[mine], paths) if self._begun else (self._prompt[mine], paths[:, 1:])
        self._active, self._begun = mine[going], True
        if going.any():
            with self._stats.timed("cache"):
                self._keep(np.flatnonzero(going), base[going], own[going])

    def _ended(self, number: int, passed: int, done: Done) -> bool:
        """Hand a text over if it has ended; what was written behind its end does not count."""
        written = self._tokens[number, self._prompt[number] : self._length[number]]
        end = self._ends.find(written, passed + 1, int(self._limit[number]))
        before = len(written) - passed - 1
        self._accepted[number] += passed if end is None else min(passed, end[0] - before)
        if end is None:
            return False
        counts = (int(counters[number]) for counters in (self._calls, self._drafted, self._accepted))
        done(number, written[: end[0]].copy(), end[1], TextStats(*counts))
        self._drafter.learn(written[: end[0]], self._groups[number])
        return True

    def _keep(self, rows: Int64, base: Int64, path: Int64) -> None:
        """Compact the cache: of every kept row its first `base` slots, then those of `path` [B, L] (-1: none)."""
        length = base + (path >= 0).sum(axis=1)
        self._cached[self._active] = length
        at = np.arange(int(length.max()))
        beyond = np.clip(at - base[:, None], 0, max(path.shape[1] - 1, 0))
        slots = np.broadcast_to(at, (len(rows), len(at)))
        if path.shape[1]:
            slots = np.where(at < base[:, None], at, np.take_along_axis(path, beyond, axis=1))
        slots = np.where(at < length[:, None], slots, 0)
        whole = len(rows) == self._cache.batch and len(at) == self._cache.length
        if not whole or (slots != at).any():
            self._cache.keep(rows, slots)


def _paths(branches: Branches, slot: Int64, batch: int, last: int) -> Int64:
    """[B + n, 1 + D] slots: the last token's (`last`; -1: it is part of a prompt), then the draft's down to each token.

    The first B rows are those of the requests' last tokens, the others of the drafted ones; -1 behind shorter paths.
    """
    depth = int(branches.depth.max(initial=0))
    paths = np.full((batch + len(slot), 1 + depth), -1)
    paths[:, 0] = last
    for level in range(1, depth + 1):
        here = np.flatnonzero(branches.depth == level)
        parent = branches.parent[here]
        paths[batch + here] = paths[np.where(parent < 0, branches.request[here], batch + parent)]
        paths[batch + here, level] = slot[here]
    return paths
