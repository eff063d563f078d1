"""What an evaluation tells: the numbers as they are written, and how they come from users' lists and counts."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec.structs import replace

from ..runtime import Recommendation
from ..runtime.metrics import (
    NEAR,
    Estimate,
    coverage,
    estimate,
    median_estimate,
    ndcg_per_user,
    recall_per_user,
    resampled_means,
)
from ..runtime.stats import DecodeStats
from ..runtime.types import Float64, Int64

COUNTS = ("target_calls", "draft_calls", "nodes")
QUALITY = ("recall", "ndcg")
COLUMNS = (*QUALITY, *COUNTS, "recall_warm", "ndcg_warm", "recall_cold", "ndcg_cold")


class Part(msgspec.Struct, frozen=True):
    """Ranking quality on labels of one kind, over the requests that have some."""

    requests: int
    recall: Estimate
    ndcg: Estimate


class Difference(msgspec.Struct, frozen=True):
    """A mode's mean less the first mode's, on the same requests."""

    recall: Estimate
    ndcg: Estimate
    target_calls: Estimate


class AtK(msgspec.Struct, frozen=True):
    """One mode's lists of K items: means over requests."""

    k: int
    recall: Estimate
    ndcg: Estimate
    warm: Part | None  # labels that occur in training histories; None: there are none of the kind, or no histories
    cold: Part | None  # those that do not
    coverage: float  # share of the catalog that occurs in any list
    target_calls: Estimate
    accept_steps: Estimate  # AS@K: tokens of the longest identifier, less target calls
    draft_calls: Estimate
    nodes: Estimate  # trie nodes the target evaluated
    acceptance: tuple[float | None, ...]  # share of needed nodes that were there ahead of need, at depths 1 to L - 1;
    # None: none was needed, or nothing was ever evaluated ahead of need
    stand_ins: float  # nodes that stood in for better ones
    differing: int | None  # lists that are not plain beam search's; None: not strict, or that was not run
    difference: Difference | None  # None: this is the first mode


class Pace(msgspec.Struct, frozen=True):
    """How long one contestant took, over rounds in which all take their turn."""

    name: str
    k: int
    batch: int
    rounds: int
    milliseconds: Estimate  # a request: the median over rounds
    speedup: dict[str, Estimate]  # WS@K against each baseline: the median of the rounds' ratios
    differing: int | None = None  # lists of `generate` that are not our exact ones
    same_as: str | None = None  # whose times these are: it did the very same work in every round


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one mode gave n requests at one K."""

    ranked: tuple[tuple[str, ...], ...]  # [n] item ids, best first
    scores: tuple[tuple[float, ...], ...]  # [n] of these
    counts: Int64  # [n, 3] target calls, draft calls, nodes
    acceptance: tuple[float | None, ...]
    stand_ins: int

    @classmethod
    def of(cls, results: Sequence[Recommendation], stats: DecodeStats) -> "Outcome":
        """stats: of these results alone."""
        acceptance = stats.acceptance() if stats.nodes_drafted or stats.found.any() else [None] * (stats.length - 1)
        costs = [(r.stats.target_calls, r.stats.draft_calls, r.stats.nodes_evaluated) for r in results]
        return cls(
            tuple(tuple(entry.item for entry in result.items) for result in results),
            tuple(tuple(entry.score for entry in result.items) for result in results),
            np.array(costs, np.int64), tuple(acceptance), stats.stand_ins,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Truth:
    """The requests that were evaluated, and what counts as found."""

    users: tuple[str, ...]  # [n] a user may have several requests
    labels: tuple[frozenset[str], ...]  # [n] none is empty
    warm: AbstractSet[str] | None  # items of the training histories; None: not known
    items: int  # in the catalog
    length: int  # L: tokens of the longest identifier


def per_request(outcome: Outcome, truth: Truth, k: int) -> Float64:
    """[n, 9] a request's numbers, by `COLUMNS`; NaN where it has no labels of the kind."""
    values = np.full((len(truth.labels), len(COLUMNS)), np.nan)
    values[:, :2] = _quality(outcome, truth.labels, k)
    values[:, 2:5] = outcome.counts
    if truth.warm is not None:
        values[:, 5:7] = _quality(outcome, [wanted & truth.warm for wanted in truth.labels], k)
        values[:, 7:9] = _quality(outcome, [wanted - truth.warm for wanted in truth.labels], k)
    return values


def _quality(outcome: Outcome, labels: Sequence[AbstractSet[str]], k: int) -> Float64:
    """[n, 2] Recall@K and NDCG@K; NaN for requests without labels."""
    quality = np.full((len(labels), 2), np.nan)
    some = [i for i, wanted in enumerate(labels) if wanted]
    if some:
        ranked, wanted = [outcome.ranked[i] for i in some], [labels[i] for i in some]
        quality[some, 0], quality[some, 1] = recall_per_user(ranked, wanted, k), ndcg_per_user(ranked, wanted, k)
    return quality


def at_k(
    outcomes: Mapping[str, Outcome], truth: Truth, k: int, *, plain: str | None, strict: AbstractSet[str], seed: int
) -> dict[str, AtK]:
    """Every mode's figures for one K; the first mode is the one the others are compared with.

    plain: the mode that is beam search without drafting; strict: the modes whose lists must be the same.
    """
    each = np.stack([per_request(outcome, truth, k) for outcome in outcomes.values()], axis=1)  # [n, modes, 9]
    drawn = resampled_means(each.reshape(len(each), -1), truth.users, seed=seed).reshape(-1, *each.shape[1:])
    figures: dict[str, AtK] = {}
    for i, (name, outcome) in enumerate(outcomes.items()):
        own = _means(each[:, i], drawn[:, i])
        difference = _means(each[:, i] - each[:, 0], drawn[:, i] - drawn[:, 0]) if i else None
        calls, stand_ins = own["target_calls"], outcome.stand_ins / len(each)
        steps = Estimate(truth.length - calls.value, truth.length - calls.high, truth.length - calls.low)
        figures[name] = AtK(
            k, own["recall"], own["ndcg"], _part(own, "warm", each[:, i]), _part(own, "cold", each[:, i]),
            coverage(outcome.ranked, truth.items), calls, steps, own["draft_calls"], own["nodes"], outcome.acceptance,
            stand_ins, differing(outcome, outcomes[plain]) if plain is not None and name in strict else None,
            None if difference is None else Difference(*(difference[c] for c in ("recall", "ndcg", "target_calls"))),
        )  # fmt: skip
    return figures


def _means(values: Float64, drawn: Float64) -> dict[str, Estimate]:
    """The mean of every column of [n, 9] that has numbers, with the interval that its resamples [S, 9] give."""
    known = {name: column[~np.isnan(column)] for name, column in zip(COLUMNS, values.T, strict=True)}
    return {
        name: estimate(column.mean(), drawn[:, COLUMNS.index(name)]) for name, column in known.items() if len(column)
    }


def _part(own: Mapping[str, Estimate], kind: str, each: Float64) -> Part | None:
    if f"recall_{kind}" not in own:
        return None
    requests = int((~np.isnan(each[:, COLUMNS.index(f"recall_{kind}")])).sum())
    return Part(requests, own[f"recall_{kind}"], own[f"ndcg_{kind}"])


def differing(outcome: Outcome, plain: Outcome) -> int:
    """How many lists are not the same; see `same_list`."""
    pairs = zip(outcome.ranked, outcome.scores, plain.ranked, plain.scores, strict=True)
    return sum(not same_list(*pair) for pair in pairs)


def same_list(
    items: Sequence[object], scores: Sequence[float], others: Sequence[object], other_scores: Sequence[float]
) -> bool:
    """Whether two ranked lists hold the same in the same order.

    Entries whose scores differ by less than `NEAR` may swap, the last with one beyond the end as well.
    """
    if len(items) != len(others):
        return False
    theirs = dict(zip(others, other_scores, strict=True))
    for item, score, other in zip(items, scores, others, strict=True):
        tied = (theirs.get(item, other_scores[-1]), theirs[other])
        if item != other and not all(score == there or abs(score - there) < NEAR for there in tied):  # NaN is no tie
            return False
    return True


def ranking_fault(got: Sequence[tuple[object, float]], expected: Sequence[tuple[object, float]]) -> str | None:
    """Why two rankings are not the same, or None.

    Scores must agree within 1e-3. Entries whose expected scores differ by less than 1e-4 may swap, the
    last with one beyond the end as well.
    """
    if len(got) != len(expected):
        return f"{len(got)} entries, expected {len(expected)}"
    for rank, ((a, score_a), (b, score_b)) in enumerate(zip(got, expected, strict=True)):
        if score_a != score_b and not abs(score_a - score_b) <= 1e-3:  # also NaN
            return f"rank {rank + 1}: {a} scores {score_a:.6f}, expected {b} with {score_b:.6f}"
        if a != b:
            near = [entry for entry, score in expected if abs(score - score_b) < 1e-4]
            if a not in near and abs(score_b - expected[-1][1]) >= 1e-4:
                return f"rank {rank + 1}: {a} with {score_a:.6f}, expected {b} with {score_b:.6f}"
    return None


def paces(seconds: Mapping[str, Float64], baselines: Sequence[str], k: int, batch: int) -> list[Pace]:
    """Every contestant's pace from its rounds' seconds [R], and its speed-up over each baseline that took part.

    NaN: it sat that round out; ratios are those of the rounds of both.
    """
    result = []
    for name, own in seconds.items():
        speedup = {base: _median(seconds[base] / own) for base in baselines if base in seconds and base != name}
        result.append(Pace(name, k, batch, int((~np.isnan(own)).sum()), _median(1000 * own / batch), speedup))
    return result


def _median(values: Float64) -> Estimate:
    """Of those that are there."""
    return median_estimate(values[~np.isnan(values)])


def told_once(found: Sequence[Pace], same: AbstractSet[str], base: str) -> list[Pace]:
    """The paces, but those of `same` as the pace of `base`: they did what it did, call by call."""
    of = {pace.name: pace for pace in found}
    return [replace(of[base], name=pace.name, same_as=base) if pace.name in same else pace for pace in found]
