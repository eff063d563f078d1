"""The gate: whether a quantized target still ranks as the original does, on users that nothing was calibrated on."""

from collections.abc import Callable, Sequence

import numpy as np

from ..catalog.errors import EngineError
from ..catalog.histories.dataset import Example
from ..engines.bundle.facts import Comparison, EnginePrecision, Gate
from ..runtime.answers import answered
from ..runtime.metrics import estimate, ndcg_per_user, recall_per_user, resampled_means
from ..runtime.recommender import Recommender
from ..runtime.types import Float64

TOP_K = (10, 20)
OVERLAP_K, LEAST_OVERLAP = 20, 0.90
NDCG, MOST_LOST = "ndcg@10", 0.02
RESAMPLES = 2000

Ranked = list[tuple[str, ...]]  # [n] item ids of every request, best first
Progress = Callable[[int], None]  # users served


def ranked_lists(recommender: Recommender, examples: Sequence[Example], progress: Progress) -> Ranked:
    """The longest lists that the gate looks at, of every request."""
    k = min(max(TOP_K), recommender.max_k or max(TOP_K), len(recommender.catalog.item_ids))
    requests = [recommender.encode(e.history, user=e.user) for e in examples]
    results = answered(recommender.run(requests, k, progress=progress))
    return [tuple(item.item for item in result.items) for result in results]


def compare(reference: Ranked, candidate: Ranked, examples: Sequence[Example], *, seed: int = 0) -> Gate:
    """Overlap, recall and NDCG of two rankings of the same users.

    Passed: mean overlap@20 of at least 90 %, and a 95 % paired bootstrap interval of NDCG@10's relative change
    that excludes a loss above 2 %. Hits are rare, so NDCG alone is noise, and overlap alone is blind to what
    matters: both must hold. Without a hit there is no NDCG to compare, and the gate is not passed.
    """
    users, labels = [e.user for e in examples], [set(e.labels) for e in examples]
    overlap = {str(k): float(np.mean(_overlaps(reference, candidate, k))) for k in TOP_K}
    metrics = {}
    for name, per_user in (("recall", recall_per_user), ("ndcg", ndcg_per_user)):
        for k in TOP_K:
            pair = np.stack([per_user(reference, labels, k), per_user(candidate, labels, k)], axis=1)
            metrics[f"{name}@{k}"] = _comparison(pair, users, seed)
    low = metrics[NDCG].low
    passed = overlap[str(OVERLAP_K)] >= LEAST_OVERLAP and low is not None and low >= -MOST_LOST
    return Gate(requests=len(examples), users=len(set(users)), overlap=overlap, metrics=metrics, passed=passed)


def refusal(gate: Gate, what: str, precision: EnginePrecision = "int8") -> EngineError:
    """What to say where the gate is not passed."""
    ndcg, overlap = gate.metrics[NDCG], gate.overlap[str(OVERLAP_K)]
    reasons = []
    if overlap < LEAST_OVERLAP:
        reasons.append(f"its lists share {overlap:.1%} of their first {OVERLAP_K} items with the original's "
                       f"(at least {LEAST_OVERLAP:.0%})")  # fmt: skip
    if ndcg.low is None:
        reasons.append("the original's lists hold none of the items that came next, so NDCG cannot be compared")
    elif ndcg.low < -MOST_LOST:
        reasons.append(
            f"NDCG@10 is {ndcg.value:.4f} beside {ndcg.reference:.4f}, and may have fallen by {-ndcg.low:.1%} (95 % "
            f"bound; at most {MOST_LOST:.0%})"
        )
    more = "Calibrate on more histories, or compare on more" if precision == "int8" else "Compare on more histories"
    return EngineError(
        f"The {precision} target ({what}) is not built: on {gate.requests} requests ({gate.users} users) "
        f"{'; '.join(reasons)}. {more} (NDCG of few is noise), leave more in floating point (--keep), try another "
        "--method, or build it anyway with --no-gate."
    )


def _overlaps(reference: Ranked, candidate: Ranked, k: int) -> Float64:
    shares = [len({*a[:k]} & {*b[:k]}) / max(len(a[:k]), 1) for a, b in zip(reference, candidate, strict=True)]
    return np.array(shares)


def _comparison(pair: Float64, users: Sequence[str], seed: int) -> Comparison:
    """pair [n, 2]: a metric of each request, users [n] who made them; the original's and the quantized target's."""
    before, after = pair.mean(axis=0).tolist()
    if not before:
        return Comparison(reference=before, value=after, low=None, high=None)
    means = resampled_means(pair, users, resamples=RESAMPLES, seed=seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.where(means[:, 0] > 0, means[:, 1] / means[:, 0] - 1, np.nan)
    interval = estimate(after / before - 1, change)
    return Comparison(reference=before, value=after, low=interval.low, high=interval.high)
