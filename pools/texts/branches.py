"""Draft trees out of pools: what followed a request's last tokens in earlier texts, the most frequent branches first.

After LASER (arXiv 2408.05676), which counts windows in a trie of dictionaries; here they are counted when they are
asked for, out of sorted rows of tokens, for a whole batch at once.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .lookup import Places, TextDrafting, look_up
from .sources import SEPARATOR, AnyTokens, Int64, Source, Tokens

__all__ = ["Branches", "TextDrafting", "propose"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


class Branches(NamedTuple):
    """Draft trees of a batch, flat.

    Grouped by request, each one's branches best first: a parent comes before its children, and the first m branches
    of a request are themselves a tree, the best of that size.
    """

    request: Int64  # [n] index into the batch, ascending
    parent: Int64  # [n] index into these arrays; -1: the request's last token
    token: Int64  # [n]
    depth: Int64  # [n] 1, 2, ...
    share: Float64  # [n] of the weight of all that followed the query, at most the parent's

    @property
    def rank(self) -> Int64:
        """[n] the number of every branch among its request's: 0, 1, ..."""
        return np.arange(len(self.request)) - np.searchsorted(self.request, self.request)


def propose(
    contexts: Sequence[AnyTokens],
    sources: Sequence[Sequence[Source]],
    drafting: TextDrafting,
    depths: Int64 | None = None,
    fresh: Bool | None = None,
) -> Branches:
    """Draft every request of a batch from its sources, and from its own text.

    The query is the longest suffix of the request's text, of at most `drafting.query` tokens, that any of its sources
    knows; all sources' occurrences of it are counted, each with its source's weight. With `drafting.backoff` those of
    shorter suffixes count, too, but far less. The `drafting.draft_tokens` most frequent branches are proposed; of
    equally frequent ones those less deep, then those of smaller tokens.

    contexts[b]: all tokens of request b, its prompt and what is generated. sources[b]: its pools. depths [B]: the
    deepest branch wanted; 0: none at all. Default: `drafting.depth`. fresh [B]: nothing is generated yet, so that
    what texts begin with is proposed where a source knows texts. Raises `PoolError` for a source whose windows are
    shorter than `drafting.reach`.
    """
    limits = np.minimum(drafting.depth if depths is None else depths, np.full(len(contexts), drafting.depth))
    found = [
        places
        for b in np.flatnonzero(limits > 0).tolist()
        for places in look_up(b, contexts[b], sources[b], drafting, fresh=fresh is not None and bool(fresh[b]))
    ]
    if not found:
        none = np.empty(0, np.int64)
        return Branches(none, none, none, none, np.empty(0))
    request, tokens, weight = _windows(found, int(limits.max()))
    weights = _branch_weights(request, tokens, weight, limits[request])
    return _best(request, tokens, weights, drafting)


def _windows(found: Sequence[Places], depth: int) -> tuple[Int64, Tokens, Int64]:
    """What follows at every place, sorted: requests [n], tokens [depth, n] and weights [n]."""
    ends = list(accumulate(len(places.at) for places in found))
    rows = np.empty((ends[-1], 1 + depth), ">u4")
    weight = np.empty(ends[-1], np.int64)
    for places, start, end in zip(found, [0, *ends], ends, strict=False):
        rows[start:end, 0] = places.request
        rows[start:end, 1:] = places.source.windows(depth)[places.at]
        weight[start:end] = places.weight
    # a row's bytes compare as its numbers do, and each source's rows are sorted already: one cheap merge
    order = rows.view(f"S{rows.itemsize * rows.shape[1]}").ravel().argsort(kind="stable")
    columns = rows[order].T.astype(np.uint32, order="C")
    return columns[0].astype(np.int64), columns[1:], weight[order]


def _branch_weights(request: Int64, tokens: Tokens, weight: Int64, limit: Int64) -> Int64:
    """Weights of branches [depth, n], each where its first row is; 0 where no branch begins.

    request [n], tokens [depth, n], weight [n]: sorted rows. limit [n]: the deepest branch wanted.
    """
    depth, n = tokens.shape
    new = np.ones((depth, n), bool)
    np.not_equal(tokens[:, 1:], tokens[:, :-1], out=new[:, 1:])
    new[0, 1:] |= request[1:] != request[:-1]
    np.logical_or.accumulate(new, axis=0, out=new)
    weights = np.zeros((depth, n), np.int64)
    weights[new] = np.add.reduceat(weight[None].repeat(depth, axis=0).ravel(), new.ravel().nonzero()[0])
    ended = np.logical_or.accumulate(tokens == SEPARATOR, axis=0)
    ended |= np.arange(depth)[:, None] >= limit
    weights[ended] = 0
    return weights


def _best(request: Int64, tokens: Tokens, weights: Int64, drafting: TextDrafting) -> Branches:
    """The branches of most weight of every request; see `propose`."""
    n = len(request)
    first = np.flatnonzero(request[1:] != request[:-1]) + 1
    parts, totals = [], []
    for start, end in pairwise([0, *first.tolist(), n]):
        own = weights[:, start:end]
        total = int(own[0].sum())
        chosen = _most(own.ravel(), drafting.draft_tokens, ceil(drafting.min_share * total))
        parts.append(chosen + chosen // (end - start) * (n - end + start) + start)  # places in all of `weights`
        totals.append(np.full(len(chosen), total))
    branch = np.concatenate(parts)
    share = weights.ravel()[branch] / np.concatenate(totals)
    depth, row = np.divmod(branch, n)
    return Branches(request[row], _parents(branch, n), tokens[depth, row].astype(np.int64), depth + 1, share)


def _parents(branch: Int64, n: int) -> Int64:
    """Which of the branches [m], each the place of its first row in [depth, n], is each one's parent; -1: none."""
    order = branch.argsort()
    # a parent begins one depth higher at the same row, or before it with no other branch between
    parent = order[branch[order].searchsorted(branch - n, side="right") - 1]
    parent[branch < n] = -1
    return parent


def _most(weights: Int64, most: int, least: int) -> Int64:
    """Where the `most` largest weights are, the largest first (ties: the first); none below `least`, and no 0."""
    at = (weights >= max(least, 1)).nonzero()[0]
    if len(at) > most:
        there = weights[at]
        cut = np.sort(there)[-most]  # faster than partitioning: most of them are equal
        above, equal = at[there > cut], at[there == cut]
        at = np.concatenate((above, equal[: most - len(above)]))
        at.sort()
    return at[(-weights[at]).argsort(kind="stable")]
