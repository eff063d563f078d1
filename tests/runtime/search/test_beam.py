"""Choosing the best candidates of every request, against a sort."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from specbeam.runtime.search.beam import best_per_request


def sorted_naively(request: list[int], score: list[float], batch: int, width: int) -> list[list[int]]:
    """The same, one request at a time; `sorted` is stable, so ties keep the candidates' order."""
    best = []
    for wanted in range(batch):
        mine = sorted((i for i, owner in enumerate(request) if owner == wanted), key=lambda i: -score[i])[:width]
        best.append(mine + [-1] * (width - len(mine)))
    return best


@given(
    # few distinct values, so that ties are common; impossible candidates are ranked last
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, -0.5, -1.0, -2.0, -7.5, -np.inf])), max_size=60),
    st.integers(5, 7),
    st.integers(1, 20),
)
@settings(max_examples=300, deadline=None)
def test_equals_a_stable_sort(candidates: list[tuple[int, float]], batch: int, width: int) -> None:
    candidates.sort(key=lambda candidate: candidate[0])
    request, score = [owner for owner, _ in candidates], [value for _, value in candidates]
    best = best_per_request(np.array(request, np.int64), np.array(score, np.float64), batch, np.full(batch, width))
    assert best.dtype == np.int64
    assert best.tolist() == sorted_naively(request, score, batch, width)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 300), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_equals_a_stable_sort_on_many_candidates(seed: int, batch: int, count: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    request, score = np.sort(rng.integers(0, batch, count)), rng.normal(size=count).round(1)
    best = best_per_request(request, score, batch, np.full(batch, width))
    assert best.tolist() == sorted_naively(request.tolist(), score.tolist(), batch, width)


def test_equal_scores_keep_the_order_of_the_candidates_across_the_cut() -> None:
    request, score = np.zeros(6, np.int64), np.array([-1.0, -2.0, -1.0, -2.0, -2.0, -0.5])
    assert best_per_request(request, score, 1, np.full(1, 4)).tolist() == [[5, 0, 2, 1]]


def test_requests_without_candidates() -> None:
    best = best_per_request(np.array([1, 1]), np.array([-2.0, -1.0]), 3, np.full(3, 3))
    assert best.tolist() == [[-1, -1, -1], [1, 0, -1], [-1, -1, -1]]
    assert best_per_request(np.empty(0, np.int64), np.empty(0), 2, np.full(2, 2)).tolist() == [[-1, -1], [-1, -1]]
