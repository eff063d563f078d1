"""Objectives at their limits: nothing to learn, far from the target, one level."""

from typing import Any

import numpy as np
import pytest
import torch

from objective_cases import ROWS, WIDTH, Case
from scripted_search import random_catalog
from specbeam.align.objectives import OBJECTIVES, find_objective
from specbeam.align.teaching.batch import TreeBatcher
from specbeam.align.teaching.lessons import shallow
from specbeam.align.teaching.searcher import Searcher
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.attention_mask import MASK_TYPES
from specbeam.engines.torch import TorchEngine
from tiny_models import make_model


@pytest.mark.parametrize("name", ["word-kd", "tvd-kd", "atspeed-r", "path-kd"])
def test_a_draft_that_is_the_target_has_nothing_to_learn(case: Case, name: Any) -> None:
    batch = case.batch()
    q = batch.teacher.clone().requires_grad_()
    loss = find_objective(name, alpha=1.0)(batch, q)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert q.grad is not None
    assert float(q.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_gradients_are_finite_far_from_the_target(case: Case, name: Any, scale: float) -> None:
    """Also where one token has all the probability, of the children or of the rest of the vocabulary."""
    batch = case.batch()
    logits = scale * torch.randn(len(batch.owner), ROWS, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    q = logits.log_softmax(-1)[batch.parent, batch.token]
    loss = find_objective(name)(batch, q)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().max() > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_level_of_items_is_no_special_case(name: Any) -> None:
    rng = np.random.default_rng(0)
    trie = ItemTrie.build(random_catalog(rng, 8, 1, 9))
    engine = TorchEngine(make_model(rows=ROWS), trie.vocabulary, precision="fp32", threads=0)
    prompts = [np.array([3, 4], np.int64)]
    trees = shallow(Searcher(engine, trie, [], WIDTH).trees(prompts), trie)
    batch = TreeBatcher(trie, MASK_TYPES["fp32"])(prompts, trees, np.array([2]))
    q = batch.teacher.clone().requires_grad_()
    find_objective(name)(batch, q).backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()
