"""What became of the nodes that were drafted: how often a draft of so many nodes held all that the target needed."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ...catalog.bounds import Positive, Size, Whole
from ...catalog.errors import SpecBeamError
from ...catalog.files import Frozen
from ...catalog.trie import ItemTrie
from ..types import Bool, DraftTree, Frontier, Int64, ScoringKind, Verdict
from .census import Choices
from .estimates import GRID, PRIOR_REQUESTS, Counts, Estimates, level_place

__all__ = ["GRID", "PRIOR_REQUESTS", "Acceptance", "AcceptanceCounts", "DepthCounts", "LevelCounts", "WidthCounts"]
_GRID = np.array(GRID)


class LevelCounts(Frozen, frozen=True):
    """One level of the drafts from one depth, for every width of the grid that drafts had at least."""

    start: Whole  # depth of the frontier that was drafted from
    level: Positive  # 1, 2, ...; the last that is counted apart stands for those beyond
    trials: tuple[Size, ...]  # drafts whose level the target reached
    complete: tuple[Size, ...]  # of these, how many held every needed node among their first
    needed: tuple[Size, ...]  # needed nodes of the trials
    found: tuple[Size, ...]  # of these, how many were among the first drafted


class DepthCounts(Frozen, frozen=True):
    """One depth of the target's own search, each request once."""

    requests: Size
    idle: Size  # requests for which it needed no scores at this depth
    needed: Size  # nodes whose children's scores it needed
    children: Size  # children of the frontier that need scores in turn


class WidthCounts(Frozen, frozen=True):
    """All counts of the requests that asked for one K."""

    k: Positive
    depths: tuple[DepthCounts, ...]  # 0, 1, ..., L - 1
    levels: tuple[LevelCounts, ...]  # those with trials


class AcceptanceCounts(Frozen, frozen=True):
    """An `Acceptance` as JSON."""

    grid: tuple[int, ...]
    widths: tuple[WidthCounts, ...]


class _Reached(NamedTuple):
    """Depths below L that requests reached in a round, and the nodes they needed there."""

    request: Int64  # [n]
    depth: Int64  # [n]
    children: Int64  # [n] of the frontier there, those that need scores
    owner: Int64  # [nodes] position in the above, ascending
    node: Int64  # [nodes]


class Acceptance:
    """How many of the nodes that the target needed were drafted, by K, start depth, level and draft width.

    A trial is one level of one request's draft that the target reached. A draft of D nodes is a trial
    for all widths up to D, so that narrow drafts say nothing of wide ones. What is not observed is
    believed (see `Estimates.of`), mildly hopefully, so that a planner tries to draft and learns; the
    belief weighs `PRIOR_REQUESTS` requests. What the target's own search needs is counted of batches without drafts,
    too. A K with fewer requests than the belief's is spoken for by the nearest one that has more. Reading needs no
    lock while another thread adds; two must not add at once.
    """

    def __init__(self, trie: ItemTrie, scoring: ScoringKind = "full") -> None:
        self.length, self.scoring, self.nodes = trie.length, scoring, len(trie.parent)
        self._choices = Choices(trie, scoring)
        self._census = self._choices.census()
        self._counts: dict[int, Counts] = {}
        self.version = 0  # grows with every count
        self._cache: dict[int, tuple[Counts | None, Estimates]] = {}

    def observe(self, before: Frontier, tree: DraftTree, verdict: Verdict, enumerated: Bool | None = None) -> None:
        """Count one round. enumerated [B]: requests whose level 1 is all children there are, ranked by nobody."""
        batch, length = len(before.depth), self.length
        reached = self._reached(before, verdict)
        level = reached.depth - before.depth[reached.request]
        drafted = np.bincount(tree.nodes.request * length + tree.level - 1, minlength=batch * length)
        drafted = drafted[reached.request * length + level - 1]
        if enumerated is not None:
            drafted[enumerated[reached.request]] = 0
        rank = _ranks(reached.request[reached.owner], reached.node, tree, self.nodes)
        trials = _trials(reached, rank, drafted)
        needed = np.bincount(reached.owner, minlength=len(level))
        depths = np.stack([needed >= 0, needed == 0, needed, reached.children], axis=1).astype(np.int64)
        ended = before.active & ~verdict.frontier.active
        for k in sorted(set(before.width[before.active].tolist())):
            counts, own, mine = Counts.empty(length), before.width[reached.request] == k, before.width == k
            request, depth = reached.request[own], reached.depth[own]
            np.add.at(counts.levels, (before.depth[request], level_place(level[own])), trials[own])
            np.add.at(counts.depths, depth, depths[own])
            counts.depths[0, 0] = (mine & before.active & (before.depth == 0)).sum()
            last = verdict.frontier.depth[ended & mine]
            counts.depths[:, :2] += (last[:, None] < np.arange(length)).sum(axis=0)[:, None]  # nothing needed any more
            self._add(k, counts)

    def merge(self, other: "Acceptance") -> None:
        """Add another's counts. Raises `ValueError` where they are of identifiers of another length."""
        if other.length != self.length:
            raise ValueError(f"got counts for identifiers of {other.length} tokens, expected {self.length}")
        self.add(other.counts)

    def add(self, counts: Mapping[int, Counts]) -> None:
        """Add counts, by K, of identifiers of the same length."""
        for k, each in counts.items():
            self._add(k, each)

    @property
    def counts(self) -> dict[int, Counts]:
        """By K, as they are now."""
        return dict(self._counts)

    def requests(self, k: int) -> int:
        """How many requests speak for K: its own, or those of the K that stands in for it."""
        counts = self._counts.get(self._nearest(k))
        return 0 if counts is None else counts.requests

    def drafted(self, k: int) -> int:
        """Of these requests, how many drafts were made for, from any depth."""
        counts = self._counts.get(self._nearest(k))
        return 0 if counts is None else int(counts.levels[:, 0, 0, 0].sum())

    def p_complete(self, k: int, s: int, j: int, w: float) -> float:
        """Chance that the first w nodes drafted at level j from depth s are all that the target needs there.

        Given that it gets there: that the levels before are complete. For K = k; s + j < L.
        """
        return float(self.estimates(k).p_complete(s, j, np.array([float(w)]))[0])

    def share_found(self, k: int, s: int, j: int, w: float) -> float:
        """Share of the nodes the target needs there that are among the first w."""
        return float(self.estimates(k).share_found(s, j, np.array([float(w)]))[0])

    def need(self, k: int, s: int, j: int, r: int) -> float:
        """Chance that the node of rank r (from 0) at level j of a draft from depth s is needed."""
        share = self.estimates(k).share_found(s, j, np.array([float(r), r + 1.0]))
        return float(min(1.0, (share[1] - share[0]) * self.needed_nodes(k, s + j)))

    def needed_nodes(self, k: int, s: int) -> float:
        """Mean nodes whose children's scores the target needs at depth s."""
        return float(self.estimates(k).needed[s])

    def enumerated(self, k: int, s: int) -> float:
        """Mean nodes to evaluate at depth s + 1 where all children of the frontier at depth s are."""
        return float(self.estimates(k).children[s])

    def estimates(self, k: int) -> Estimates:
        """All statistics of K = k, if it has many requests; else those of the nearest K, all widths in proportion."""
        nearest = self._nearest(k)
        counts = self._counts.get(nearest)
        known = self._cache.get(k)
        if known is None or known[0] is not counts:
            known = counts, Estimates.of(counts or Counts.empty(self.length), nearest, self._census, k)
            self._cache[k] = known
        return known[1]

    def _nearest(self, k: int) -> int:
        """The K to look at for k: one with a belief's worth of requests, if there is any."""
        weak = {q: counts.depths[0, 0] < PRIOR_REQUESTS for q, counts in list(self._counts.items())}
        return min(weak, key=lambda q: (weak[q], abs(np.log(q / k)), q), default=k)

    def _reached(self, before: Frontier, verdict: Verdict) -> _Reached:
        nothing, count = np.empty(0, np.int64), 0
        depth = verdict.frontier.depth
        ended = np.flatnonzero(before.active & ~verdict.frontier.active & (depth < self.length))
        parts = [_Reached(ended, depth[ended], np.zeros(len(ended), np.int64), nothing, nothing)]
        count = len(ended)
        for step in verdict.steps:
            here = np.flatnonzero(step.moved & (step.depth < self.length))
            nodes = step.nodes[here]
            owner, rank = np.nonzero(step.needed[here])
            children = self._choices.below(nodes.ravel()).reshape(nodes.shape).sum(axis=1)
            parts.append(_Reached(here, step.depth[here], children, owner + count, nodes[owner, rank]))
            count += len(here)
        return _Reached(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _add(self, k: int, counts: Counts) -> None:
        self._counts[k] = counts + self._counts[k] if k in self._counts else counts
        self.version += 1

    def snapshot(self) -> AcceptanceCounts:
        """All counts, to be kept in a file."""
        return packed(self._counts)

    @classmethod
    def from_snapshot(cls, counts: AcceptanceCounts, trie: ItemTrie, scoring: ScoringKind = "full") -> "Acceptance":
        """The counts of a file; raises `SpecBeamError` where they are damaged or of another catalog's shape."""
        acceptance = cls(trie, scoring)
        acceptance.add(unpacked(counts, trie.length))
        return acceptance


def packed(counts: Mapping[int, Counts]) -> AcceptanceCounts:
    """Counts by K, to be kept in a file."""
    return AcceptanceCounts(grid=GRID, widths=tuple(_packed(k, each) for k, each in sorted(counts.items())))


def unpacked(counts: AcceptanceCounts, length: int) -> dict[int, Counts]:
    """The counts of a file by K, for identifiers of so many tokens; raises as `Acceptance.from_snapshot` does."""
    if counts.grid != GRID:
        raise SpecBeamError(f"The acceptance counts are of draft widths {counts.grid}, expected {GRID}. Count anew.")
    found = dict[int, Counts]()
    for width in counts.widths:
        each = _unpacked(width, length)
        found[width.k] = each + found[width.k] if width.k in found else each
    return found


def _ranks(request: Int64, node: Int64, tree: DraftTree, stride: int) -> Int64:
    """The rank in the draft of nodes [n] of requests [n]; beyond the grid where they were not drafted."""
    keys = tree.nodes.request * stride + tree.nodes.node
    if not len(keys):
        return np.full(len(node), GRID[-1])
    order = np.argsort(keys)
    wanted = request * stride + node
    at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    return np.where(keys[at] == wanted, tree.rank[at], GRID[-1])


def _trials(reached: _Reached, rank: Int64, drafted: Int64) -> Int64:
    """[n, 4, grid] what every depth that was reached adds to trials, complete, needed and found."""
    size, count = len(GRID) + 1, len(drafted)
    first = np.searchsorted(_GRID, rank + 1)  # [nodes] the narrowest draft that holds the node
    within = np.bincount(reached.owner * size + first, minlength=count * size).reshape(count, size).cumsum(axis=1)
    needed, found = within[:, -1:], within[:, :-1]
    trial: Int64 = (drafted[:, None] >= _GRID).astype(np.int64)
    return np.stack([trial, trial * (found == needed), trial * needed, trial * found], axis=1)


def _packed(k: int, counts: Counts) -> WidthCounts:
    depths = tuple(
        DepthCounts(requests=requests, idle=idle, needed=needed, children=children)
        for requests, idle, needed, children in counts.depths.tolist()
    )
    levels = []
    for s, j in np.argwhere(counts.levels[:, :, 0].any(axis=-1)).tolist():
        trials, complete, needed, found = map(tuple, counts.levels[s, j].tolist())
        level = LevelCounts(start=s, level=j + 1, trials=trials, complete=complete, needed=needed, found=found)
        levels.append(level)
    return WidthCounts(k=k, depths=depths, levels=tuple(levels))


def _unpacked(width: WidthCounts, length: int) -> Counts:
    """Raises `SpecBeamError` where the counts cannot have been counted."""
    counts = Counts.empty(length)
    sound = width.k > 0 and len(width.depths) == length
    for level in width.levels:
        row = level.trials, level.complete, level.needed, level.found
        inside = level.start >= 0 and level.level >= 1 and level.start + level.level < length
        sound = sound and inside and {len(part) for part in row} == {len(GRID)}
        if sound:
            counts.levels[level.start, level_place(np.array(level.level))] += row
    if sound:
        counts.depths[:] = [(depth.requests, depth.idle, depth.needed, depth.children) for depth in width.depths]
        trials, complete, needed, found = np.moveaxis(counts.levels, 2, 0)
        requests, idle = counts.depths[:, 0], counts.depths[:, 1]
        least = min(counts.levels.min(), counts.depths.min())
        parts = (complete <= trials).all() and (found <= needed).all() and (idle <= requests).all()
        sound = bool(least >= 0 and parts)
    if not sound:
        raise SpecBeamError(
            f"The acceptance counts for lists of {width.k} items are damaged, or not of identifiers of {length} "
            "tokens. Count anew."
        )
    return counts
