"""Verification of text is arithmetic: held against walking every branch by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specbeam.catalog.errors import OptionError
from specbeam.pools.texts.branches import Branches
from specbeam.text.types import TextVerification
from specbeam.text.verify import accept


def random_tree(rng: np.random.Generator, batch: int, vocabulary: int) -> Branches:
    columns: list[list[int]] = [[], [], [], []]
    for b in range(batch):
        own: list[int] = []
        for _ in range(rng.integers(0, 12)):
            parent = int(rng.choice([-1, *own]))
            token = int(rng.integers(vocabulary))
            if any(columns[0][i] == b and columns[1][i] == parent and columns[2][i] == token for i in own):
                continue
            depth = 1 if parent < 0 else columns[3][parent] + 1
            own.append(len(columns[0]))
            for column, value in zip(columns, (b, parent, token, depth), strict=True):
                column.append(value)
    return Branches(*(np.array(column, np.int64) for column in columns), np.ones(len(columns[0])))


def by_hand(logprobs: np.ndarray, tree: Branches, row: np.ndarray, v: TextVerification) -> tuple[list[int], list[int]]:
    nodes, bonuses = [], []
    for b in range(len(logprobs)):
        best = (0, 0.0, -1)
        for i in np.flatnonzero(tree.request == b):
            path = [int(i)]
            while tree.parent[path[-1]] >= 0:
                path.append(int(tree.parent[path[-1]]))
            total, passed = 0.0, True
            for node in reversed(path):
                p = logprobs[b, 0 if tree.parent[node] < 0 else row[tree.parent[node]]].astype(np.float64)
                token = tree.token[node]
                likely = np.exp(p[token]) > v.threshold and (p > p[token]).sum() < v.accept_top_k
                passed &= bool(token == p.argmax() or (v.mode == "relaxed" and likely))
                total += p[token]
            if passed and (len(path), total) > best[:2] if best[2] >= 0 else passed:
                best = (len(path), total, int(i))
        nodes.append(best[2])
        bonuses.append(int(logprobs[b, 0 if best[2] < 0 else row[best[2]]].argmax()))
    return nodes, bonuses


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**20), batch=st.integers(1, 4), top=st.integers(1, 4),
    threshold=st.sampled_from([0.0, 0.1, 0.3]), mode=st.sampled_from(["strict", "relaxed"]),
)  # fmt: skip
def test_the_longest_branch_that_passes(seed: int, batch: int, top: int, threshold: float, mode: str) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, batch, vocabulary := 5)
    rank = np.arange(len(tree.request)) - np.searchsorted(tree.request, tree.request)
    logits = rng.normal(0, 1.5, (batch, 2 + int(rank.max(initial=-1)), vocabulary))
    logprobs = (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)
    verification = TextVerification(mode, top, threshold)  # type: ignore[arg-type]
    got = accept(logprobs, tree, 1 + rank, verification)
    nodes, bonuses = by_hand(logprobs, tree, 1 + rank, verification)
    assert got.node.tolist() == nodes
    assert got.bonus.tolist() == bonuses


def test_one_of_one_without_a_threshold_is_strict() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        tree = random_tree(rng, 3, 4)
        rank = np.arange(len(tree.request)) - np.searchsorted(tree.request, tree.request)
        logprobs = rng.normal(-2, 1, (3, 2 + int(rank.max(initial=-1)), 4)).astype(np.float32)
        one = accept(logprobs, tree, 1 + rank, TextVerification("relaxed", accept_top_k=1, threshold=0.0))
        two = accept(logprobs, tree, 1 + rank, TextVerification())
        assert one.node.tolist() == two.node.tolist()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mode": "loose"}, "expected one of strict, relaxed"),
        ({"mode": "relaxed", "accept_top_k": 0}, "at least 1"),
        ({"mode": "relaxed", "threshold": 1.0}, "from 0 to below 1"),
        ({"mode": "relaxed", "threshold": float("nan")}, "from 0 to below 1"),
    ],
)
def test_verification_out_of_range(settings: dict, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        TextVerification(**settings)
