"""Counts of what became of drafts, smoothed into chances: see `Acceptance`, which counts."""

from dataclasses import dataclass

import numpy as np

from ..types import Float64, Int64

GRID = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 120)  # widths of a drafted level that are counted
PRIOR_REQUESTS = 20.0  # what is believed before anything is observed weighs as much as this many requests


@dataclass(frozen=True, eq=False)
class Counts:
    """The counts of one K. Never changed, only replaced: who reads while another thread adds sees one or the other."""

    levels: Int64  # [L, L, 4, grid] trials, complete, needed, found; by start depth, level - 1 and width
    depths: Int64  # [L, 4] requests, idle, needed, children

    @classmethod
    def empty(cls, length: int) -> "Counts":
        return cls(np.zeros((length, length, 4, len(GRID)), np.int64), np.zeros((length, 4), np.int64))

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.levels + other.levels, self.depths + other.depths)


@dataclass(frozen=True, eq=False)
class Census:
    """Nodes of the trie by depth, [L] each."""

    inner: Int64  # those that have children
    open: Int64  # of these, those whose children need scores


@dataclass(frozen=True, eq=False)
class Estimates:
    """The statistics of one K, for queries of many widths at once."""

    widths: Float64  # [1 + grid] 0 and the grid
    complete: Float64  # [L, L, 1 + grid] by start depth, level - 1 and width; grows with the width
    share: Float64  # [L, L, 1 + grid] likewise
    needed: Float64  # [L] nodes whose children's scores the target needs at each depth; 1 at depth 0
    children: Float64  # [L] children of the frontier at each depth that need scores in turn
    census: Census

    @classmethod
    def of(cls, counts: Counts, k: int, census: Census, wanted: int) -> "Estimates":
        """What the counts of K = k say of K = wanted: all numbers of nodes in proportion.

        Of n needed nodes, w >= n drafted ones are believed to hold the share 1 - n/4w (w < n: 3w/4n), and
        all of them with the chance share^sqrt(n), as misses come together.
        """
        requests, idle, needed, children = counts.depths.T.astype(np.float64)
        weight, below = requests + PRIOR_REQUESTS, np.append(census.open[1:], 0)
        need = (needed + PRIOR_REQUESTS * np.minimum(k, census.open)) / weight
        kids = np.minimum(need * below / np.maximum(census.inner, 1), below)
        kids = (children + PRIOR_REQUESTS * kids) / weight
        idle = np.where(census.open > 0, idle / weight, 1.0)
        need[0], idle[0] = 1.0, 0.0
        complete, share = _smoothed(counts.levels, need, idle)
        ratio = wanted / k
        need, kids = np.minimum(need * ratio, census.open), np.minimum(kids * ratio, below)
        need[0], kids[0] = 1.0, below[0]  # the prompt, and all first tokens
        return cls(np.concatenate([[0], np.array(GRID) * ratio]), complete, share, need, kids, census)

    def p_complete(self, s: int, j: int, w: Float64) -> Float64:
        """[n] chance that the first w [n] drafted at level j from depth s hold all that the target needs there."""
        return self._at(self.complete, s, j, w)

    def share_found(self, s: int, j: int, w: Float64) -> Float64:
        """[n] share of the needed nodes that are among them."""
        return self._at(self.share, s, j, w)

    def _at(self, table: Float64, s: int, j: int, w: Float64) -> Float64:
        # Where the levels before are complete, as many nodes as there are cannot lack one.
        return np.where(w >= self.census.inner[s + j], 1.0, np.interp(w, self.widths, table[s, j - 1]))


def _smoothed(levels: Int64, need: Float64, idle: Float64) -> tuple[Float64, Float64]:
    """[L, L, 1 + grid] chance that a level is complete, and share of its needed nodes found, by width from 0 on."""
    length = len(need)
    depth = np.minimum(np.arange(length)[:, None] + np.arange(1, length + 1), length - 1)  # [L, L] s + j
    need, few = need[depth], np.finfo(np.float64).tiny
    count = np.maximum(need, 1.0)
    incomplete, missed = [1 - idle[depth]], [np.ones(depth.shape)]
    ahead = incomplete[0] * 0, missed[0] * 0
    for width, counts in zip(GRID, np.moveaxis(levels, 3, 0).astype(np.float64), strict=True):
        trials, complete, needed, found = np.moveaxis(counts, 2, 0)
        share = np.where(width < count, 0.75 * width / count, 1 - 0.25 * count / width)
        belief = np.where(width < count, 0.0, share ** np.sqrt(count)), share
        # The belief says how much a wider draft adds to what the narrower is known to hold.
        still = incomplete[-1] * (1 - belief[0]) / (1 - ahead[0]), missed[-1] * (1 - belief[1]) / (1 - ahead[1])
        fail = (trials - complete + PRIOR_REQUESTS * still[0]) / (trials + PRIOR_REQUESTS)
        miss = (needed - found + PRIOR_REQUESTS * need * still[1]) / (needed + PRIOR_REQUESTS * need + few)
        incomplete.append(np.minimum(fail, incomplete[-1]))
        missed.append(np.minimum(miss, missed[-1]))
        ahead = belief
    return 1 - np.stack(incomplete, axis=-1), 1 - np.stack(missed, axis=-1)
