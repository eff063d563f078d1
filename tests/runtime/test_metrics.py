"""Recall@K and NDCG@K against their formulas, written out."""

from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specbeam.runtime.metrics import ndcg_at_k, ndcg_per_user, recall_at_k, recall_per_user

ITEMS = [str(i) for i in range(12)]


def test_worked_examples() -> None:
    ranked = [["a", "b", "c"], ["x", "y", "z"], ["p", "q", "r"]]
    labels = [{"b", "d"}, {"x"}, {"nothing"}]
    np.testing.assert_allclose(recall_per_user(ranked, labels, 2), [1 / 2, 1, 0])
    np.testing.assert_allclose(ndcg_per_user(ranked, labels, 2), [(1 / log2(3)) / (1 + 1 / log2(3)), 1, 0])
    assert recall_at_k(ranked, labels, 2) == pytest.approx(1.5 / 3)
    assert recall_at_k(ranked, labels, 1) == pytest.approx(1 / 3)
    assert ndcg_at_k(ranked, labels, 1) == pytest.approx(1 / 3)


def test_more_labels_than_k() -> None:
    ranked, labels = [["a", "b"]], [{"a", "b", "c", "d"}]
    assert recall_at_k(ranked, labels, 2) == pytest.approx(0.5)  # of all labels
    assert ndcg_at_k(ranked, labels, 2) == pytest.approx(1)  # the ideal list has k entries, too


def test_lists_shorter_than_k() -> None:
    assert recall_at_k([["a"], []], [{"a", "b"}, {"c"}], 5) == pytest.approx(0.25)
    assert ndcg_at_k([["a"], []], [{"a", "b"}, {"c"}], 5) == pytest.approx(0.5 / (1 + 1 / log2(3)))


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(ITEMS), unique=True), st.sets(st.sampled_from(ITEMS), min_size=1)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 15),
)
def test_against_the_formulas(users: list[tuple[list[str], set[str]]], k: int) -> None:
    ranked, labels = [items for items, _ in users], [wanted for _, wanted in users]
    recalls = [len(set(items[:k]) & wanted) / len(wanted) for items, wanted in users]
    ndcgs = []
    for items, wanted in users:
        gain = sum(1 / log2(rank + 1) for rank, item in enumerate(items[:k], 1) if item in wanted)
        ideal = sum(1 / log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
        ndcgs.append(gain / ideal)
    np.testing.assert_allclose(recall_per_user(ranked, labels, k), recalls)
    np.testing.assert_allclose(ndcg_per_user(ranked, labels, k), ndcgs)
    assert recall_at_k(ranked, labels, k) == pytest.approx(np.mean(recalls))
    assert ndcg_at_k(ranked, labels, k) == pytest.approx(np.mean(ndcgs))


@pytest.mark.parametrize("metric", [recall_at_k, ndcg_at_k])
def test_what_is_not_defined_is_refused(metric: object) -> None:
    assert callable(metric)
    with pytest.raises(ValueError, match="k is 0"):
        metric([["a"]], [{"a"}], 0)
    with pytest.raises(ValueError, match="got 2 lists and 1 label sets"):
        metric([["a"], ["b"]], [{"a"}], 1)
    with pytest.raises(ValueError, match="at least one"):
        metric([], [], 1)
    with pytest.raises(ValueError, match=r"user 1 .* no labels"):
        metric([["a"], ["b"]], [{"a"}, set()], 1)
    with pytest.raises(ValueError, match=r"user 0 .* twice in its first 2"):
        metric([["a", "a"]], [{"a"}], 2)
    assert metric([["a", "b", "b"]], [{"a"}], 2) == 1
