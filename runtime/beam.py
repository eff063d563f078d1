"""Choosing the best candidates of every request at once."""

import numpy as np

from .types import Float64, Int64


def best_per_request(request: Int64, score: Float64, batch: int, width: int) -> Int64:
    """The `width` best candidates of every request.

    request [m], ascending; score [m]. Returns indices into the candidates [B, width], best first, -1
    where a request has fewer. Equal scores keep the candidates' order: with candidates listed by parent
    rank and then token id, that is the better parent first, then the smaller token id.
    """
    count = np.bincount(request, minlength=batch)
    start = np.cumsum(count) - count
    most = int(count.max(initial=0))
    chosen = np.arange(len(request))
    if most > width:  # drop all below the width-th best of their request, so that only few are sorted
        dense = np.full((batch, most), np.inf)
        dense[request, chosen - start[request]] = -score
        threshold = np.partition(dense, width - 1, axis=1)[:, width - 1]
        chosen = np.flatnonzero(-score <= threshold[request])
        count = np.bincount(request[chosen], minlength=batch)
        start = np.cumsum(count) - count
    chosen = chosen[np.lexsort((-score[chosen], request[chosen]))]
    owner = request[chosen]
    rank = np.arange(len(chosen)) - start[owner]
    best = np.full((batch, width), -1, np.int64)
    inside = rank < width
    best[owner[inside], rank[inside]] = chosen[inside]
    return best
