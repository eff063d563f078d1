"""Choosing the best candidates of every request at once."""

import numpy as np

from .types import Float64, Int64


def best_per_request(request: Int64, key: Float64, batch: int, width: Int64) -> Int64:
    """The `width` [B] best candidates of every request.

    request [m], ascending; key [m]. Returns indices into the candidates [B, largest width], best first, -1
    where a request has fewer. Equal keys keep the candidates' order: with candidates listed by parent
    rank and then token id, that is the better parent first, then the smaller token id.
    """
    count = np.bincount(request, minlength=batch)
    start = np.cumsum(count) - count
    most, widest = int(count.max(initial=0)), int(width.max(initial=0))
    chosen = np.arange(len(request))
    if most > widest > 0:  # drop all below the widest-th best of their request, so that only few are sorted
        dense = np.full((batch, most), np.inf)
        dense[request, chosen - start[request]] = -key
        threshold = np.partition(dense, widest - 1, axis=1)[:, widest - 1]
        chosen = np.flatnonzero(-key <= threshold[request])
        count = np.bincount(request[chosen], minlength=batch)
        start = np.cumsum(count) - count
    chosen = chosen[np.lexsort((-key[chosen], request[chosen]))]
    owner = request[chosen]
    rank = np.arange(len(chosen)) - start[owner]
    best = np.full((batch, widest), -1, np.int64)
    inside = rank < width[owner]
    best[owner[inside], rank[inside]] = chosen[inside]
    return best
