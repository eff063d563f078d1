"""Encoder-decoders that learn: a packed tree says what plain sequences say, and everything on its way learns."""

import numpy as np
import pytest
import torch

from naive_trie import path
from scripted_search import ragged_catalog, random_catalog
from specbeam.align.teaching.batch import TreeBatch, TreeBatcher
from specbeam.align.teaching.student import child_logprobs
from specbeam.align.teaching.trees import Trees
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.attention_mask import MASK_TYPES
from tiny_models import ENCODER_DECODERS, WORDS, make_model

ROWS, START = 34, WORDS.index("<pad>")


def trees_of(rng: np.random.Generator, trie: ItemTrie, batch: int) -> Trees:
    """Nodes at random (no leaves) with their ancestors."""
    inner = np.flatnonzero(trie.child_count > 0)
    nodes = [
        sorted({0, *(above for node in rng.choice(inner, 1 + row) for above in path(trie, int(node)))})
        for row in range(batch)
    ]
    flat = np.concatenate([np.array(part, np.int32) for part in nodes])
    children = int(trie.child_count[flat].sum())
    return Trees(np.array([len(part) for part in nodes]), flat, np.zeros(children), np.full((batch, 1), -1, np.int32))


@pytest.fixture(params=[False, True], ids=["even", "ragged"])
def known(request: pytest.FixtureRequest) -> tuple[ItemTrie, list[np.ndarray], Trees, TreeBatch]:
    rng = np.random.default_rng(1)
    trie = ItemTrie.build((ragged_catalog if request.param else random_catalog)(rng, 30, 3, 4))
    prompts, trees = [rng.integers(3, 30, length) for length in (7, 1, 20, 4)], trees_of(rng, trie, 4)
    batcher = TreeBatcher(trie, MASK_TYPES["fp32"], START)
    return trie, prompts, trees, batcher(prompts, trees, np.full(4, -1))


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_a_packed_tree_equals_plain_sequences(
    known: tuple[ItemTrie, list[np.ndarray], Trees, TreeBatch], kind: str
) -> None:
    trie, prompts, trees, batch = known
    model, expected = make_model(kind, rows=ROWS), []
    owners = np.repeat(np.arange(len(trees)), trees.count).tolist()
    with torch.inference_mode():
        for owner, node in zip(owners, trees.node.tolist(), strict=True):
            tokens = [START, *trie.tokens(np.array(path(trie, node), np.int64)).tolist()]
            asked = {"input_ids": torch.from_numpy(prompts[owner])[None], "decoder_input_ids": torch.tensor([tokens])}
            logprobs = model(**asked).logits[0, -1].log_softmax(-1)
            _, children = trie.children(np.array([node]))
            expected.append(logprobs[trie.tokens(children)])
        got = child_logprobs(model, batch)
    torch.testing.assert_close(got, torch.cat(expected), atol=1e-5, rtol=0)


def test_every_weight_learns(known: tuple[ItemTrie, list[np.ndarray], Trees, TreeBatch]) -> None:
    *_, batch = known
    model = make_model("t5", rows=ROWS)
    before = child_logprobs(model, batch)
    before.sum().backward()
    still = [name for name, weight in model.named_parameters() if weight.grad is None or not bool(weight.grad.any())]
    assert still == []
    with torch.no_grad():
        bias = model.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        bias -= bias.grad
    assert float((child_logprobs(model, batch) - before).detach().abs().max()) > 1e-3


def test_padding_changes_nothing(known: tuple[ItemTrie, list[np.ndarray], Trees, TreeBatch]) -> None:
    trie, prompts, trees, batch = known
    model = make_model("t5", rows=ROWS)
    with torch.inference_mode():
        together = child_logprobs(model, batch)
        alone = TreeBatcher(trie, MASK_TYPES["fp32"], START)(
            prompts[1:2], trees.taken(np.array([1]), trie), np.array([-1])
        )
        own = together[batch.owner[batch.parent] == 1]
        torch.testing.assert_close(child_logprobs(model, alone), own, atol=1e-5, rtol=0)
