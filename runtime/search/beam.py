"""Beams: flat lists of scored nodes, and the best of every request chosen at once (ties are broken here)."""

import numpy as np

from ..types import Beams, Bool, Float64, Int64


def numbered(request: Int64, batch: int) -> tuple[Int64, Int64]:
    """How many there are of every request [B], and each one's number [m] among its request's.

    request [m], grouped: all of one request side by side, in ascending order.
    """
    count = np.bincount(request, minlength=batch)
    return count, np.arange(len(request)) - (count.cumsum() - count)[request]


def best_per_request(request: Int64, key: Float64, batch: int, width: Int64) -> Int64:
    """The `width` [B] best candidates of every request.

    request [m], ascending; key [m]. Returns indices into the candidates [B, largest width], best first, -1
    where a request has fewer. Equal keys keep the candidates' order: with candidates listed by parent
    rank and then token id, that is the better parent first, then the smaller token id.
    """
    cost = -key
    count, place = numbered(request, batch)
    most, widest = int(count.max(initial=0)), int(width.max(initial=0))
    chosen = np.arange(len(request))
    if most > widest > 0:  # drop all below the widest-th best of their request, so that only few are sorted
        dense = np.full((batch, most), np.inf)
        dense[request, place] = cost
        dense.partition(widest - 1, axis=1)
        chosen = (cost <= dense[request, widest - 1]).nonzero()[0]
    chosen = chosen[np.lexsort((cost[chosen], request[chosen]))]
    owner = request[chosen]
    _, rank = numbered(owner, batch)
    best = np.full((batch, widest), -1)
    inside = rank < width[owner]
    best[owner[inside], rank[inside]] = chosen[inside]
    return best


def beams_of(nodes: Int64, scores: Float64, keys: Float64, chosen: Bool) -> Beams:
    """The chosen ones of [B, W] hypotheses, flat."""
    request, rank = np.nonzero(chosen)
    return Beams(request, nodes[request, rank], scores[request, rank], keys[request, rank])


def taken(beams: Beams, which: Bool | Int64) -> Beams:
    """Some of the beams, by mask or by index."""
    request, node, score, key = beams
    return Beams(request[which], node[which], score[which], key[which])
