"""Ranking metrics for several labels per user, of binary relevance: Recall@K and NDCG@K.

Users are independent: the `..._per_user` variants return one number each (for bootstrap intervals),
the others their mean. All raise ValueError where a metric is not defined: no users, as many lists as
label sets expected, a user without labels, k below 1, an item twice in a list's first k.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from .types import Bool, Float64, Int64

Ranked = Sequence[Sequence[str]]  # [U] item ids, best first; lists may be shorter than k
Labels = Sequence[AbstractSet[str]]  # [U] the items that count as found


def recall_at_k(ranked: Ranked, labels: Labels, k: int) -> float:
    """Mean over users of `recall_per_user`."""
    return float(recall_per_user(ranked, labels, k).mean())


def ndcg_at_k(ranked: Ranked, labels: Labels, k: int) -> float:
    """Mean over users of `ndcg_per_user`."""
    return float(ndcg_per_user(ranked, labels, k).mean())


def recall_per_user(ranked: Ranked, labels: Labels, k: int) -> Float64:
    """[U] |labels among the first k items| / |labels|.

    The divisor is not cut at k: a user with more than k labels cannot reach 1.
    """
    hits, count = _hits(ranked, labels, k)
    recall: Float64 = hits.sum(axis=1) / count
    return recall


def ndcg_per_user(ranked: Ranked, labels: Labels, k: int) -> Float64:
    """[U] DCG / IDCG, with DCG = sum of 1 / log2(rank + 1) over ranks 1 to k that hold a label.

    IDCG is the DCG of the best list there could be: labels at ranks 1 to min(k, |labels|).
    """
    hits, count = _hits(ranked, labels, k)
    gain = 1 / np.log2(np.arange(2, k + 2))  # [k]
    ndcg: Float64 = (hits @ gain) / np.cumsum(gain)[np.minimum(count, k) - 1]
    return ndcg


def _hits(ranked: Ranked, labels: Labels, k: int) -> tuple[Bool, Int64]:
    """Whether each rank holds a label [U, k], and how many labels there are [U]."""
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    if not ranked or len(ranked) != len(labels):
        raise ValueError(f"got {len(ranked)} lists and {len(labels)} label sets, expected as many and at least one")
    count = np.array([len(wanted) for wanted in labels], np.int64)
    if not count.all():
        raise ValueError(f"user {int(count.argmin())} (from 0) has no labels; leave such users out")
    hits = np.zeros((len(ranked), k), bool)
    for user, (items, wanted) in enumerate(zip(ranked, labels, strict=True)):
        first = items[:k]
        if len(set(first)) != len(first):
            raise ValueError(f"the list of user {user} (from 0) holds an item twice in its first {k}")
        hits[user, : len(first)] = [item in wanted for item in first]
    return hits, count
