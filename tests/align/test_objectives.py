"""Objectives: what a packed tree gives is what every sequence by itself gives, position by position."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from naive_trie import children
from objective_cases import Case, Position, make_case
from specbeam.align.objectives import OBJECTIVES, AtSpeedS, Objective, PathKd, data_loss, find_objective
from specbeam.align.teaching.segments import LEAST, log_shares, log_total, ranks, total
from specbeam.align.teaching.student import child_logprobs

Grouped = tuple[list[float], list[int], int]


@st.composite
def grouped(draw: st.DrawFn) -> Grouped:
    """Values, many of them equal, each one's group, and how many groups there are: some empty."""
    values = draw(st.lists(st.one_of(st.sampled_from([0.0, -1.0, -700.0]), st.floats(-50, 0)), max_size=12))
    groups = draw(st.integers(1, 5))
    return values, draw(st.lists(st.integers(0, groups - 1), min_size=len(values), max_size=len(values))), groups


@settings(deadline=None)
@given(grouped())
def test_groups_are_summed_and_ranked_as_by_a_loop(case: Grouped) -> None:
    numbers, members, groups = case
    values, group = torch.tensor(numbers, dtype=torch.float64), torch.tensor(members, dtype=torch.int64)
    mine = [[value for value, g in zip(numbers, members, strict=True) if g == wanted] for wanted in range(groups)]
    np.testing.assert_allclose(total(values, group, groups), [sum(part) for part in mine], rtol=1e-12)
    logs = [float(np.logaddexp.reduce(part)) if part else LEAST for part in mine]
    np.testing.assert_allclose(log_total(values, group, groups), logs, rtol=1e-12, atol=1e-12)
    shares = [value - logs[g] for value, g in zip(numbers, members, strict=True)]
    np.testing.assert_allclose(log_shares(values, group, groups), shares, rtol=1e-12, atol=1e-12)
    expected = [0] * len(numbers)
    for wanted in range(groups):
        inside = [i for i, g in enumerate(members) if g == wanted]
        for rank, i in enumerate(sorted(inside, key=lambda i: -numbers[i])):  # stable: earlier first among equals
            expected[i] = rank
    assert ranks(values, group).tolist() == expected


@settings(deadline=None)
@given(grouped())
def test_gradients_of_shares_are_those_of_a_softmax(case: Grouped) -> None:
    numbers, members, groups = case
    values = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
    group = torch.tensor(members, dtype=torch.int64)
    weight = torch.arange(1.0, len(numbers) + 1, dtype=torch.float64)
    (log_shares(values, group, groups) * weight).sum().backward()
    assert values.grad is not None
    got, values.grad = values.grad, None
    for wanted in set(members):
        inside = torch.nonzero(group == wanted)[:, 0]
        (values[inside].log_softmax(0) * weight[inside]).sum().backward()
    torch.testing.assert_close(got, values.grad if values.grad is not None else torch.zeros_like(got))


def test_what_is_impossible_has_no_share_and_breaks_no_gradient() -> None:
    values = torch.tensor([-1.0, -torch.inf, -torch.inf, LEAST], dtype=torch.float64, requires_grad=True)
    group = torch.tensor([0, 0, 1, 2])
    assert log_total(values, group, 4).tolist() == [-1.0, LEAST, LEAST, LEAST]
    shares = log_shares(values, group, 4)
    assert shares.exp().tolist() == [1.0, 0.0, 0.0, 1.0]
    shares[[0, 3]].sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()


Naive = Callable[[Case], torch.Tensor]


def mean(values: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(values)).mean()


def cross_entropy(positions: Sequence[Position]) -> torch.Tensor:
    return mean([-position.q[position.taken] for position in positions])


def variation(positions: Sequence[Position], temperature: float = 1.0) -> torch.Tensor:
    pairs = (((p / temperature).softmax(0), (q / temperature).softmax(0)) for p, q, _ in positions)
    return mean([0.5 * (p - q).abs().sum() for p, q in pairs])


def forward_kl(positions: Sequence[Position]) -> torch.Tensor:
    pairs = ((p.log_softmax(0), q.log_softmax(0)) for p, q, _ in positions)
    return mean([(p.exp() * (p - q)).sum() for p, q in pairs])


def atspeed_s(positions: Sequence[Position], k: int, softened: float | None) -> torch.Tensor:
    values = []
    for raw_p, raw_q, _ in positions:
        p, q = raw_p.softmax(0), raw_q.softmax(0)
        chosen = q.topk(min(k, len(q))).indices  # best first
        p, q = p[chosen], q[chosen]
        p, q = (p / p.sum(), q / q.sum()) if softened is None else ((x / softened).softmax(0) for x in (p, q))
        kl, entropy = (q * (q / p).log()).sum(), -(q * q.log()).sum()
        values.append(kl + p[-1] * entropy)
    return mean(values)


def path_kd(case: Case, k: int, row_weight: float, *, leaves: bool) -> torch.Tensor:
    rows = []
    for p, q, _ in case.beams(leaves=leaves):
        rest_p, rest_q = 1 - p.exp().sum(), 1 - q.exp().sum()
        rows.append((p.exp() * (p - q)).sum() + rest_p * (rest_p / rest_q).log())
    return row_weight * mean(rows) + levels(case, k)


def levels(case: Case, k: int) -> torch.Tensor:
    """Huber distance of the paths' scores, over the target's best 2 K known nodes that are no leaves, by depth."""
    distances = []
    owner = np.repeat(np.arange(len(case.prompts)), case.trees.count)
    for prompt in range(len(case.prompts)):
        by_depth: dict[int, list[tuple[float, torch.Tensor]]] = {}
        for node in (child for known in case.trees.node[owner == prompt] for child in children(case.trie, int(known))):
            if children(case.trie, node):
                sequence = case.sequence(prompt, node)
                p, q = (torch.stack([getattr(x, name)[x.taken] for x in sequence]).sum() for name in "pq")
                gap = (p - q).abs()
                distance = 0.5 * gap**2 if gap < 1 else gap - 0.5
                by_depth.setdefault(len(sequence), []).append((float(p), distance))
        for known in by_depth.values():
            distances += [distance for _, distance in sorted(known, key=lambda pair: -pair[0])[: 2 * k]]
    return mean(distances)


def gradients(loss: torch.Tensor, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def assert_same(case: Case, objective: Objective, naive: torch.Tensor, *, leaves: bool = True) -> None:
    """The tree's value and its gradient on every weight of the draft are the naive ones."""
    batch = case.batch(leaves=leaves)
    loss = objective(batch, child_logprobs(case.draft, batch))
    torch.testing.assert_close(loss, naive, atol=1e-5, rtol=1e-5)
    got, expected = gradients(loss, case.draft), gradients(naive, case.draft)
    assert got.keys() == expected.keys() == dict(case.draft.named_parameters()).keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=2e-5, rtol=1e-4)


TREE_OBJECTIVES: dict[str, tuple[dict[str, Any], Naive]] = {
    "sft": ({}, lambda case: cross_entropy(case.truths())),
    "seq-kd": ({}, lambda case: cross_entropy(case.beams())),
    "word-kd": ({}, lambda case: forward_kl(case.truths())),
    "tvd-kd": ({}, lambda case: variation(case.truths())),
    "atspeed-r": ({}, lambda case: variation(case.beams())),
    "atspeed-r, cold": ({"temperature": 0.4}, lambda case: variation(case.beams(), 0.4)),
    "atspeed-s": ({"top_k": 3}, lambda case: atspeed_s(case.beams(), 3, None)),
    "atspeed-s, all": ({}, lambda case: atspeed_s(case.beams(), 20, None)),
    "atspeed-s, one": ({"top_k": 1}, lambda case: atspeed_s(case.beams(), 1, None)),
    "atspeed-s, softened": ({"top_k": 3, "softened": 0.2}, lambda case: atspeed_s(case.beams(), 3, 0.2)),
    "path-kd": ({"top_k": 1}, lambda case: path_kd(case, 1, 1.0, leaves=True)),
    "path-kd, all": ({"row_weight": 0.3}, lambda case: path_kd(case, 20, 0.3, leaves=True)),
}


@pytest.mark.parametrize("name", TREE_OBJECTIVES)
def test_a_tree_gives_what_its_sequences_give(case: Case, name: str) -> None:
    chosen, naive = TREE_OBJECTIVES[name]
    objective = find_objective(name.partition(",")[0], alpha=1.0, **chosen)  # type: ignore[arg-type]
    assert_same(case, objective, naive(case))


def test_the_published_softmax_over_probabilities(case: Case) -> None:
    """At a temperature of 0.001 rounding of probabilities counts a thousandfold."""
    batch = case.batch()
    with torch.no_grad():
        loss = AtSpeedS(alpha=1.0, top_k=3, softened=0.001)(batch, child_logprobs(case.draft, batch))
        torch.testing.assert_close(loss, atspeed_s_by_logs(case.beams(), 3, 0.001), atol=1e-2, rtol=1e-3)


def atspeed_s_by_logs(positions: Sequence[Position], k: int, softened: float) -> torch.Tensor:
    """As `atspeed_s`, where restricted probabilities are too small for a logarithm."""
    values = []
    for raw_p, raw_q, _ in positions:
        q = raw_q.softmax(0)
        chosen = q.topk(min(k, len(q))).indices
        p, q = ((x[chosen].double() / softened).log_softmax(0) for x in (raw_p.softmax(0), q))
        values.append((q.exp() * (q - p)).sum() - p[-1].exp() * (q.exp() * q).sum())
    return mean(values).float()


def test_path_kd_without_the_rows_above_leaves(case: Case) -> None:
    """As it is trained: no draft is asked for a leaf, so nodes that lead to nothing else are left out."""
    objective = PathKd(top_k=1)
    assert not objective.reaches_leaves
    assert len(case.batch(leaves=False).owner) < len(case.batch().owner)
    assert_same(case, objective, path_kd(case, 1, 1.0, leaves=False), leaves=False)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("name", ["seq-kd", "atspeed-s"])
def test_alpha_is_the_objectives_share(case: Case, name: Any, alpha: float) -> None:
    chosen, naive = TREE_OBJECTIVES[name]
    expected = alpha * naive(case) + (1 - alpha) * cross_entropy(case.truths())
    assert_same(case, find_objective(name, alpha=alpha, **chosen), expected)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_without_a_truth_only_the_beams_teach(name: Any) -> None:
    known = make_case(False)
    unknown = replace(known, truth=np.full(3, -1))
    batch = unknown.batch()
    q = child_logprobs(known.draft, batch)
    with torch.no_grad():
        assert float(data_loss(batch, q)) == 0
        beams = float(find_objective(name).aligned(batch, q))
    assert (beams == 0) == (name in ("sft", "word-kd", "tvd-kd"))
    loss = find_objective(name, alpha=0.7)(batch, q)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.7 * beams)
    assert all(weight.grad is None or bool(weight.grad.isfinite().all()) for weight in known.draft.parameters())
    known.draft.zero_grad()
