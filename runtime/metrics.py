"""Ranking metrics for several labels per user, of binary relevance, and how sure they are.

Users are independent: the `..._per_user` variants return one number each (for bootstrap intervals),
the others their mean. All raise ValueError where a metric is not defined: no users, as many lists as
label sets expected, a user without labels, k below 1, an item twice in a list's first k.

Intervals are 95 % percentile bootstrap intervals (Efron and Tibshirani 1993): users are drawn with replacement,
all rows of a user together, and numbers of the same draw may be subtracted (paired differences). Medians have the
interval of the sign test.
"""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from math import comb

import msgspec
import numpy as np

from .types import Bool, Float64, Int64

Ranked = Sequence[Sequence[str]]  # [U] item ids, best first; lists may be shorter than k
Labels = Sequence[AbstractSet[str]]  # [U] the items that count as found
NEAR = 1e-4  # scores that differ by less tie: engines round
RESAMPLES = 1000
CONFIDENCE = 0.95
FEWEST = 6  # values, for an interval of their median
CHUNK = 1 << 22  # drawn users held at once: 32 MB


class Estimate(msgspec.Struct, frozen=True):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


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


def coverage(ranked: Iterable[Sequence[str]], items: int) -> float:
    """Share of a catalog's `items` items that occur in any of the lists."""
    return len({item for shown in ranked for item in shown}) / items


def resampled_means(values: Float64, users: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0) -> Float64:
    """[S, M] means of the columns of `values` [n, M] in S resamples of the users, who may have several rows each.

    NaN stands for a row that has no such value; a resample in which no row has one gets NaN. The same seed
    and users draw the same resamples, whatever the values are.
    """
    group = np.unique(np.asarray(users), return_inverse=True)[1]
    present = ~np.isnan(values)
    parts = np.zeros((int(group.max()) + 1, 2, values.shape[1]))  # of every user: sum, rows
    np.add.at(parts, group, np.stack([np.where(present, values, 0), present], axis=1))
    means = [_means(times, parts) for times in _draws(len(parts), resamples, seed)]
    return np.concatenate(means)


def median_estimate(values: Float64) -> Estimate:
    """The median of values [n], and two of them that enclose the distribution's: the interval of the sign test.

    It assumes no more than that each value is as likely above the distribution's median as below it. Of fewer than
    `FEWEST` values even the lowest and the highest enclose it less often than in 95 % of cases; these it is then.
    """
    ranked, outside, left_out = np.sort(values), 0.0, 0
    while 2 * (outside + comb(len(values), left_out) / 2 ** len(values)) <= 1 - CONFIDENCE:
        outside += comb(len(values), left_out) / 2 ** len(values)
        left_out += 1
    first = max(left_out - 1, 0)
    return Estimate(float(np.median(values)), float(ranked[first]), float(ranked[len(ranked) - 1 - first]))


def estimate(value: float, resampled: Float64) -> Estimate:
    """A number and the interval of its resamples [S], of which NaN are left out."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled[~np.isnan(resampled)], [tail, 1 - tail]).tolist()
    return Estimate(float(value), low, high)


def _draws(users: int, resamples: int, seed: int) -> Iterator[Int64]:
    """How often each user is drawn [s, U], for s resamples at a time."""
    rng, step = np.random.default_rng(seed), max(1, CHUNK // users)
    for start in range(0, resamples, step):
        drawn = rng.integers(0, users, (min(step, resamples - start), users))
        drawn += users * np.arange(len(drawn))[:, None]
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)


def _means(times: Int64, parts: Float64) -> Float64:
    """[s, M] means for users drawn so often [s, U], from their sums and rows [U, 2, M]."""
    sums, rows = (times.astype(np.float64) @ parts[:, i] for i in (0, 1))
    return np.divide(sums, rows, out=np.full_like(sums, np.nan), where=rows > 0)


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
