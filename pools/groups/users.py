"""Groups of users by what they have in common, so that each draws on a small pool of texts like its own.

LASER/DARE (arXiv 2408.05676) groups users by k-means (3 groups) on LightGCN embeddings (32 dimensions, 3 layers), and
compares with random groups. Here the embeddings are singular vectors of the interaction matrix; nothing is trained.
"""

import warnings
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...catalog import checks
from ...catalog.errors import HistoryError, OptionError, SpecBeamError
from ...catalog.hashing import mix, text_key
from ...catalog.histories.requests import HistoryRequest

Float64 = NDArray[np.float64]
Told = Callable[[str], None]

LAYERS = 3  # of LightGCN, as in LASER/DARE
SILHOUETTE_SAMPLE = 2000  # its time is quadratic in it
DECIMALS = 6  # of a direction; beyond them is rounding, which must not tell equal rows apart


@dataclass(frozen=True)
class Grouping:
    """Id to group name, and how far the groups are apart, where measured: the mean silhouette of a sample, -1 to 1."""

    groups: Mapping[str, str]
    silhouette: float | None = None


def group_users(
    entries: Iterable[HistoryRequest],
    method: Literal["svd", "lightgcn", "random"] = "svd",
    groups: int = 3,
    dimension: int = 32,
    seed: int = 0,
    *,
    progress: Told = lambda stage: None,
) -> Grouping:
    """Users by what their histories have in common; several histories of a user are summed.

    svd: a user is a row of U S, from the truncated SVD of the interaction matrix normalised by the degrees of both
    sides, with `dimension` singular vectors (at most as many as there are users and items); rows scaled to length 1,
    then k-means. lightgcn: the same with the SVD's factors propagated over the graph as LightGCN does (He et al.
    2020), mean over the layers, but not trained. random: the control; a group follows from user and seed alone.

    Clusters are named "0", "1", ... from the largest. The order of the histories does not matter. Raises
    `HistoryError` where there are fewer users, or fewer different ones, than groups.
    """
    checks.choice(method, "method", ("svd", "lightgcn", "random"))
    checks.whole_number(dimension, "dimension")
    checks.whole_number(seed, "seed", 0, 2**32 - 1)
    progress("reading histories")
    if method == "random":
        users: Sequence[str] = sorted({entry.user for entry in entries})
        return Grouping(at_random(users, groups, seed, HistoryError, "users"))
    users, matrix = _interactions(entries)
    check_count(len(users), groups, HistoryError, "users")
    progress(f"embedding {len(users)} users by {matrix.shape[1]} items")
    rows = embedded(_normalised(matrix), dimension, seed, propagated=method == "lightgcn")
    progress("clustering")
    return clustered(users, rows, groups, seed, HistoryError, "users")


def check_count(count: int, groups: int, kind: type[SpecBeamError], what: str) -> None:
    """Raise `OptionError` for fewer than two groups, and `kind` for fewer of `what` than groups."""
    if checks.whole_number(groups, "groups", 0) < 2:
        raise OptionError(f"got {groups} groups; expected at least 2 (without groups all share the global pool).")
    if count < groups:
        raise kind(f"got {count} {what} for {groups} groups; expected at least one for each. Ask for fewer groups.")


def at_random(ids: Iterable[str], groups: int, seed: int, kind: type[SpecBeamError], what: str) -> dict[str, str]:
    """Id to group, each by a hash of the id and the seed."""
    keys = {name: text_key(f"{seed}\n{name}") for name in ids}
    check_count(len(keys), groups, kind, what)
    drawn = mix(np.fromiter(keys.values(), np.uint64, len(keys))) % np.uint64(groups)
    return dict(zip(keys, map(str, drawn.tolist()), strict=True))


def embedded(matrix: Any, dimension: int, seed: int, *, propagated: bool = False) -> Float64:
    """[N, D] directions (length 1, or 0) of the rows of a sparse matrix, by its truncated SVD.

    propagated: with the layers of LightGCN, which start from U sqrt(S) and V sqrt(S) and multiply by the matrix and
    its transpose in turn. As M V = U S, layer l is U sqrt(S) S^l: propagation weighs the singular vectors anew.
    """
    from sklearn.utils.extmath import randomized_svd  # type: ignore[import-untyped]

    left, strength, _ = randomized_svd(matrix, min(dimension, *matrix.shape), random_state=seed)
    if propagated:
        rows = left * np.sqrt(strength) * np.mean([strength**layer for layer in range(LAYERS + 1)], axis=0)
    else:
        rows = left * strength
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    directions: Float64 = np.round(np.divide(rows, length, out=np.zeros_like(rows), where=length > 0), DECIMALS)
    return directions


def clustered(
    ids: Sequence[str], rows: Float64, groups: int, seed: int, kind: type[SpecBeamError], what: str
) -> Grouping:
    """k-means of rows [N, D]. Raises `kind` where fewer rows differ than there are groups."""
    from sklearn.cluster import KMeans  # type: ignore[import-untyped]
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said below, with what to do
        labels = KMeans(groups, n_init=10, random_state=seed).fit_predict(rows)
    sizes = np.bincount(labels, minlength=groups)
    if found := int(np.count_nonzero(sizes == 0)):
        raise kind(
            f"the {len(ids)} {what} are of {groups - found} kinds only; expected at least {groups} that differ, one "
            "for each group. Ask for fewer groups."
        )
    name = np.empty(groups, np.int64)
    name[np.argsort(-sizes, kind="stable")] = np.arange(groups)
    return Grouping(dict(zip(ids, map(str, name[labels].tolist()), strict=True)), _silhouette(rows, labels, seed))


def _silhouette(rows: Float64, labels: NDArray[np.int32], seed: int) -> float | None:
    """Of a sample; None where the sample has one group, or no two of a group."""
    from sklearn.metrics import silhouette_score  # type: ignore[import-untyped]

    drawn = np.random.default_rng(seed).permutation(len(rows))[:SILHOUETTE_SAMPLE]
    if not 1 < len(np.unique(labels[drawn])) < len(drawn):
        return None
    return float(silhouette_score(rows[drawn], labels[drawn]))


def _interactions(entries: Iterable[HistoryRequest]) -> tuple[list[str], Any]:
    """Users, sorted, and how often each has had each item: a sparse matrix [U, I], items sorted as well."""
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

    users: dict[str, int] = {}
    items: dict[str, int] = {}
    pairs = array("q")
    for entry in entries:
        user = users.setdefault(entry.user, len(users))
        for item in entry.items:
            pairs.extend((user, items.setdefault(item, len(items))))
    cells = np.frombuffer(pairs, np.int64).reshape(-1, 2)
    by_user, by_item = (sorted(names) for names in (users, items))
    row, column = np.empty(len(users), np.int64), np.empty(len(items), np.int64)
    row[[users[name] for name in by_user]] = np.arange(len(users))
    column[[items[name] for name in by_item]] = np.arange(len(items))
    ones = np.ones(len(cells))
    matrix = csr_matrix((ones, (row[cells[:, 0]], column[cells[:, 1]])), (len(users), len(items)))  # sums what repeats
    return by_user, matrix


def _normalised(matrix: Any) -> Any:
    """D_u^-1/2 M D_i^-1/2, the normalisation of LightGCN; no row or column of M is empty."""
    from scipy.sparse import diags

    by_user, by_item = (1 / np.sqrt(np.asarray(matrix.sum(axis=axis)).ravel()) for axis in (1, 0))
    return (diags(by_user) @ matrix @ diags(by_item)).tocsr()
