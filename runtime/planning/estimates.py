"""Counts of what became of drafts, smoothed into chances: see `Acceptance`, which counts."""

from dataclasses import dataclass, replace

import numpy as np

from ..types import Float64, Int64

GRID = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 120)  # widths of a drafted level that are counted
LEVELS_APART = 8  # levels of a draft that are counted apart; those beyond are counted with the last
PRIOR_REQUESTS = 20.0  # what is believed of drafts before any is observed weighs as much as this many requests
CENSUS_REQUESTS = 4.0  # and what the trie says of the target's own search


@dataclass(frozen=True, eq=False)
class Counts:
    """The counts of one K. Never changed, only replaced: who reads while another thread adds sees one or the other."""

    levels: Int64  # [L, J, 4, grid] trials, complete, needed, found; by start depth, `level_place` and width
    depths: Int64  # [L, 4] requests, idle, needed, children

    @classmethod
    def empty(cls, length: int) -> "Counts":
        apart = min(length, LEVELS_APART)
        return cls(np.zeros((length, apart, 4, len(GRID)), np.int64), np.zeros((length, 4), np.int64))

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.levels + other.levels, self.depths + other.depths)

    def __sub__(self, earlier: "Counts") -> "Counts":
        """What was counted since."""
        return Counts(self.levels - earlier.levels, self.depths - earlier.depths)

    @property
    def requests(self) -> int:
        """That were counted."""
        return int(self.depths[0, 0])

    def capped(self, most: int) -> "Counts":
        """The same shares, by no more than so many requests."""
        if self.requests <= most:
            return self
        return Counts(*(most * each // self.requests for each in (self.levels, self.depths)))  # parts stay below wholes


@dataclass(frozen=True, eq=False)
class Census:
    """The trie by depth, [L] each."""

    inner: Int64  # nodes that have children
    open: Int64  # of these, those whose children need scores
    branching: Float64  # children that need scores, of a node that is in a beam the likelier the more it has


def level_place(level: Int64) -> Int64:
    """Where the counts of levels (from 1) are."""
    place: Int64 = np.minimum(level, LEVELS_APART) - 1
    return place


@dataclass(frozen=True, eq=False)
class Estimates:
    """The statistics of one K, for queries of many widths at once. J: levels that are counted apart."""

    widths: Float64  # [1 + grid] 0 and the grid
    complete: Float64  # [L, J, 1 + grid] by start depth, level and width; grows with the width
    share: Float64  # [L, J, 1 + grid] likewise
    needed: Float64  # [L] nodes whose children's scores the target needs at each depth; 1 at depth 0
    idle: Float64  # [L] chance that it needs none there
    children: Float64  # [L] children of the frontier at each depth that need scores in turn
    census: Census

    @classmethod
    def of(cls, counts: Counts, k: int, census: Census, wanted: int) -> "Estimates":
        """What the counts of K = k say of K = wanted: all numbers of nodes in proportion.

        Of n needed nodes, w >= n drafted ones are believed to hold the share 1 - n/4w (w < n: 3w/4n), and
        all of them with the chance share^sqrt(n), as misses come together.
        """
        requests, idle, needed, children = counts.depths.T.astype(np.float64)
        weight, below = requests + CENSUS_REQUESTS, np.append(census.open[1:], 0)
        need = (needed + CENSUS_REQUESTS * np.minimum(k, census.open)) / weight
        kids = np.minimum(need * census.branching, below)
        kids = (children + CENSUS_REQUESTS * kids) / weight
        idle = np.where(census.open > 0, idle / weight, 1.0)
        need[0], idle[0] = 1.0, 0.0
        complete, share = _smoothed(counts.levels, need, idle)
        ratio = wanted / k
        need, kids = np.minimum(need * ratio, census.open), np.minimum(kids * ratio, below)
        need[0], kids[0] = 1.0, below[0]  # the prompt, and all first tokens
        return cls(np.concatenate([[0], np.array(GRID) * ratio]), complete, share, need, idle, kids, census)

    def with_perfect_drafts(self) -> "Estimates":
        """As if every draft that is wide enough held all that is needed."""
        length, apart = self.complete.shape[:2]
        depth = np.minimum(np.arange(length)[:, None] + np.arange(1, apart + 1), length - 1)
        enough = self.widths >= self.needed[depth][..., None]
        complete, share = np.where(enough, 1.0, self.complete), np.where(enough, 1.0, self.share)
        return replace(self, complete=complete, share=share)

    def p_complete(self, s: int, j: int, w: Float64) -> Float64:
        """[n] chance that the first w [n] drafted at level j from depth s hold all that the target needs there."""
        return self._at(self.complete, s, j, w)

    def share_found(self, s: int, j: int, w: Float64) -> Float64:
        """[n] share of the needed nodes that are among them."""
        return self._at(self.share, s, j, w)

    def of_drafts(self, level: Int64, depth: Int64, widths: Int64) -> tuple[Float64, Float64]:
        """[L, F, M] both at once, of `widths` [L or 1, F, M] nodes drafted at levels [M] from every depth.

        depth [L, 1, M]: that of each level.
        """
        where = np.interp(widths, self.widths, np.arange(len(self.widths)))
        lower = np.minimum(where.astype(np.int64), len(self.widths) - 2)
        part, whole = where - lower, widths >= self.census.inner[depth]
        rows, columns = np.prod(self.complete.shape[:2]), self.complete.shape[2]
        start = np.arange(rows).reshape(self.complete.shape[:2])[:, None, level_place(level)] * columns + lower
        complete, share = (
            np.where(whole, 1.0, (1 - part) * flat[start] + part * flat[start + 1])
            for flat in (self.complete.ravel(), self.share.ravel())
        )
        return complete, share

    def _at(self, table: Float64, s: int, j: int, w: Float64) -> Float64:
        # Where the levels before are complete, as many nodes as there are cannot lack one.
        place = min(j, LEVELS_APART) - 1
        return np.where(w >= self.census.inner[s + j], 1.0, np.interp(w, self.widths, table[s, place]))


def _smoothed(levels: Int64, need: Float64, idle: Float64) -> tuple[Float64, Float64]:
    """[L, J, 1 + grid] chance that a level is complete, and share of its needed nodes found, by width from 0 on."""
    length, apart = levels.shape[:2]
    depth = np.minimum(np.arange(length)[:, None] + np.arange(1, apart + 1), length - 1)  # [L, J] s + j
    need, few, width = need[depth][..., None], np.finfo(np.float64).tiny, np.array(GRID)
    count = np.maximum(need, 1.0)
    trials, complete, needed, found = np.moveaxis(levels.astype(np.float64), 2, 0)  # [L, J, grid]
    share = np.where(width < count, 0.75 * width / count, 1 - 0.25 * count / width)
    every = np.where(width < count, 0.0, share ** np.sqrt(count))
    # The belief says how much a wider draft adds to what the narrower is known to hold.
    incomplete = _falling(1 - idle[depth], trials - complete, trials, PRIOR_REQUESTS, _shrinks(every))
    weight = PRIOR_REQUESTS * need
    missed = _falling(np.ones(depth.shape), needed - found, needed + few, weight, _shrinks(share))
    return 1 - incomplete, 1 - missed


def _shrinks(held: Float64) -> Float64:
    """[..., grid] which part of what the width before lacks each width is believed to lack still."""
    lacks = 1 - held
    return np.concatenate([lacks[..., :1], lacks[..., 1:] / lacks[..., :-1]], axis=-1)


def _falling(first: Float64, lost: Float64, trials: Float64, weight: Float64 | float, still: Float64) -> Float64:
    """[..., 1 + grid] what drafts lack by width from 0 on: as counted, mixed with what the width before leads one to
    believe by its weight, and never more than that lacks."""
    total = trials + weight
    counted, believed = lost / total, weight * still / total
    lacks = np.empty((*first.shape, 1 + lost.shape[-1]))
    lacks[..., 0] = first
    for g in range(lost.shape[-1]):
        np.minimum(counted[..., g] + believed[..., g] * lacks[..., g], lacks[..., g], out=lacks[..., g + 1])
    return lacks
