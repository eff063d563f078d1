"""Training batches: a packed tree says what plain sequences say, whatever lies beside it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naive_trie import children, path
from scripted_search import ragged_catalog, random_catalog
from specbeam.align.teaching.batch import TreeBatch, TreeBatcher, path_scores
from specbeam.align.teaching.searcher import Searcher, truth_paths
from specbeam.align.teaching.student import child_logprobs
from specbeam.align.teaching.trees import Trees
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.attention_mask import MASK_TYPES
from specbeam.engines.torch import TorchEngine
from tiny_models import KINDS, make_model

ROWS = 34  # of the models: tokens below 30, and some that are never used
Child = tuple[int, int]  # prompt, trie node


def random_trie(rng: np.random.Generator, ragged: bool) -> ItemTrie:
    make = ragged_catalog if ragged else random_catalog
    return ItemTrie.build(make(rng, int(rng.integers(1, 40)), int(rng.integers(1, 4)), int(rng.integers(1, 5))))


def random_prompts(rng: np.random.Generator, batch: int) -> list[np.ndarray]:
    return [rng.integers(3, 30, rng.integers(1, 9)) for _ in range(batch)]


def random_trees(rng: np.random.Generator, trie: ItemTrie, batch: int, width: int = 4) -> Trees:
    """Nodes at random (no leaves) with their ancestors, log-probabilities and best leaves at random."""
    inner, ends = np.flatnonzero(trie.child_count > 0), np.flatnonzero(trie.child_count == 0)
    nodes = [
        sorted({0, *(above for node in rng.choice(inner, rng.integers(0, 7)) for above in path(trie, int(node)))})
        for _ in range(batch)
    ]
    flat = np.concatenate([np.array(part, np.int32) for part in nodes])
    leaves = np.full((batch, width), -1, np.int32)
    for row in leaves:
        found = rng.permutation(ends)[: rng.integers(0, width + 1)]
        row[: len(found)] = found
    logprob = -rng.exponential(2.0, int(trie.child_count[flat].sum()))
    return Trees(np.array([len(part) for part in nodes]), flat, logprob, leaves)


def pairs_of(trie: ItemTrie, trees: Trees) -> tuple[list[Child], list[Child]]:
    """(prompt, trie node) of all nodes and of all their children, in the batch's order."""
    owner = np.repeat(np.arange(len(trees)), trees.count).tolist()
    nodes = list(zip(owner, trees.node.tolist(), strict=True))
    return nodes, [(prompt, child) for prompt, node in nodes for child in children(trie, node)]


def pack(trie: ItemTrie, prompts: Sequence[np.ndarray], trees: Trees, truth: np.ndarray | None = None) -> TreeBatch:
    truth = np.full(len(prompts), -1) if truth is None else truth
    return TreeBatcher(trie, MASK_TYPES["fp32"])(prompts, trees, truth)


# --- what a batch says about its trees


@settings(deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.integers(1, 4))
def test_nodes_and_children_by_brute_force(seed: int, ragged: bool, size: int) -> None:
    rng = np.random.default_rng(seed)
    trie = random_trie(rng, ragged)
    prompts, trees = random_prompts(rng, size), random_trees(rng, trie, size)
    truth = np.where(rng.random(size) < 0.3, -1, rng.choice(np.flatnonzero(trie.child_count == 0), size))
    batch = pack(trie, prompts, trees, truth)
    nodes, kids = pairs_of(trie, trees)
    assert batch.owner.tolist() == [prompt for prompt, _ in nodes]
    assert batch.depth.tolist() == [len(path(trie, node)) for _, node in nodes]
    assert batch.inner.tolist() == [any(children(trie, kid) for kid in children(trie, node)) for _, node in nodes]
    assert batch.place.tolist() == [kids.index(pair) if pair[1] else -1 for pair in nodes]
    assert batch.parent.tolist() == [nodes.index((prompt, int(trie.parent[kid]))) for prompt, kid in kids]
    assert batch.token.tolist() == [int(trie.tokens(np.array(kid))) for _, kid in kids]
    assert batch.needed.tolist() == [bool(children(trie, kid)) for _, kid in kids]
    np.testing.assert_array_equal(batch.teacher, trees.logprob.astype(np.float32))
    ways = [[path(trie, leaf) for leaf in row if leaf >= 0] for row in trees.leaves.tolist()]
    assert batch.beams.tolist() == [sum(kid in way for way in ways[prompt]) for prompt, kid in kids]
    assert batch.truth.tolist() == [kid in path(trie, int(truth[prompt])) for prompt, kid in kids]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.integers(1, 4))
def test_every_node_sees_its_prompt_and_its_path_at_the_right_positions(seed: int, ragged: bool, size: int) -> None:
    rng = np.random.default_rng(seed)
    trie = random_trie(rng, ragged)
    prompts, trees = random_prompts(rng, size), random_trees(rng, trie, size)
    batch = pack(trie, prompts, trees)
    length = batch.input_ids.shape[1]
    visible = (batch.attention_mask == 0).numpy()
    assert visible.shape == (size, 1, length, length)
    assert visible.any(axis=3).all()  # no row of a softmax is empty, padding's neither
    nodes, _ = pairs_of(trie, trees)
    for (prompt, node), at in zip(nodes, batch.query.tolist(), strict=True):
        row, slot = divmod(at, length)
        seen = np.flatnonzero(visible[row, 0, slot])
        tokens = [*prompts[prompt], *trie.tokens(np.array(path(trie, node), np.int64))]
        assert row == prompt
        assert seen.max() == slot
        order = np.argsort(batch.position_ids[row, seen].numpy())
        assert batch.position_ids[row, seen][order].tolist() == list(range(len(tokens)))
        assert batch.input_ids[row, seen][order].tolist() == tokens


@settings(deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_path_scores_are_sums_along_paths(seed: int, ragged: bool) -> None:
    rng = np.random.default_rng(seed)
    trie = random_trie(rng, ragged)
    trees = random_trees(rng, trie, 3)
    batch = pack(trie, random_prompts(rng, 3), trees)
    _, kids = pairs_of(trie, trees)
    given_node = dict(zip(kids, trees.logprob.tolist(), strict=True))
    expected = [sum(given_node[prompt, node] for node in path(trie, kid)) for prompt, kid in kids]
    np.testing.assert_allclose(path_scores(batch, batch.teacher), expected, rtol=1e-5)


def test_masks_of_every_type_hide_the_same() -> None:
    rng = np.random.default_rng(0)
    trie = ItemTrie.build(random_catalog(rng, 20, 3, 4))
    prompts, trees, nothing = random_prompts(rng, 3), random_trees(rng, trie, 3), np.full(3, -1)
    masks = {name: TreeBatcher(trie, kind)(prompts, trees, nothing).attention_mask for name, kind in MASK_TYPES.items()}
    assert {name: mask.dtype for name, mask in masks.items()} == {
        "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16,
    }  # fmt: skip
    for mask in masks.values():
        assert torch.equal(mask == 0, masks["fp32"] == 0)
        assert mask.min() == torch.finfo(mask.dtype).min


# --- what a model says about a batch


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_tree_equals_plain_sequences(kind: str, ragged: bool) -> None:
    rng = np.random.default_rng(1)
    trie = ItemTrie.build((ragged_catalog if ragged else random_catalog)(rng, 30, 3, 4))
    model, prompts, trees = make_model(kind, rows=ROWS), random_prompts(rng, 4), random_trees(rng, trie, 4)
    nodes, _ = pairs_of(trie, trees)
    expected = []
    with torch.inference_mode():
        got = child_logprobs(model, pack(trie, prompts, trees))
        for prompt, node in nodes:
            tokens = [*prompts[prompt].tolist(), *trie.tokens(np.array(path(trie, node), np.int64)).tolist()]
            logprobs = model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
            expected.append(logprobs[trie.tokens(np.array(children(trie, node)))])
    torch.testing.assert_close(got, torch.cat(expected), atol=1e-5, rtol=0)


@pytest.fixture
def trie() -> ItemTrie:
    return ItemTrie.build(random_catalog(np.random.default_rng(2), 30, 3, 4))


def split(trie: ItemTrie, trees: Trees) -> list[Trees]:
    """Each prompt's tree by itself."""
    ends = np.cumsum(trees.count)
    nodes = np.split(trees.node, ends[:-1])
    logprobs = np.split(trees.logprob, np.cumsum([trie.child_count[part].sum() for part in nodes])[:-1])
    return [
        Trees(trees.count[[row]], nodes[row], logprobs[row], trees.leaves[[row]]) for row in range(len(trees))
    ]  # fmt: skip


def test_neighbours_and_padding_change_nothing(trie: ItemTrie) -> None:
    rng = np.random.default_rng(3)
    model, prompts, trees = make_model(rows=ROWS), random_prompts(rng, 5), random_trees(rng, trie, 5)
    batch = pack(trie, prompts, trees)
    with torch.inference_mode():
        together = child_logprobs(model, batch)
        alone = [
            child_logprobs(model, pack(trie, [prompt], one))
            for prompt, one in zip(prompts, split(trie, trees), strict=True)
        ]
        used = np.zeros(batch.input_ids.shape, bool)
        used.ravel()[batch.query] = True
        for row, prompt in enumerate(prompts):
            used[row, : len(prompt)] = True
        assert not used.all()
        other = torch.where(torch.from_numpy(used), batch.input_ids, 31)
        padded_otherwise = child_logprobs(model, replace(batch, input_ids=other))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    assert torch.equal(together, padded_otherwise)


def embedding_gradient(model: torch.nn.Module, batch: TreeBatch, chosen: torch.Tensor) -> torch.Tensor:
    """[B, T] how much the input embedding of every position moves the chosen children's log-probabilities."""
    embedded: list[torch.Tensor] = []

    def remember(_: torch.nn.Module, __: object, output: torch.Tensor) -> None:
        output.retain_grad()
        embedded.append(output)

    handle = model.get_input_embeddings().register_forward_hook(remember)  # type: ignore[operator]
    child_logprobs(model, batch)[chosen].sum().backward()
    handle.remove()
    assert embedded[0].grad is not None
    return embedded[0].grad.abs().sum(-1)


def test_gradients_flow_along_paths_only(trie: ItemTrie) -> None:
    rng = np.random.default_rng(5)
    model, prompts, trees = make_model(rows=ROWS), random_prompts(rng, 3), random_trees(rng, trie, 3)
    batch = pack(trie, prompts, trees)
    nodes, kids = pairs_of(trie, trees)
    length = batch.input_ids.shape[1]
    slots = dict(zip(nodes, batch.query.tolist(), strict=True))
    for child in (int(batch.depth[batch.parent].argmax()), 0, len(kids) - 1):
        prompt, kid = kids[child]
        way = [prompt * length + slot for slot in range(len(prompts[prompt]))]
        way += [slots[prompt, node] for node in path(trie, int(trie.parent[kid]))]
        moved = embedding_gradient(model, batch, torch.tensor([child])).flatten()
        assert moved.nonzero().flatten().tolist() == sorted(way)
    moved = embedding_gradient(model, batch, torch.arange(len(kids))).flatten()
    real = {row * length + slot for row, prompt in enumerate(prompts) for slot in range(len(prompt))}
    assert set(moved.nonzero().flatten().tolist()) == real | set(slots.values())


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_training_and_the_runtime_see_the_same(attention: str, ragged: bool) -> None:
    rng = np.random.default_rng(6)
    trie = ItemTrie.build((ragged_catalog if ragged else random_catalog)(rng, 50, 3, 5))
    prompts = random_prompts(rng, 4)
    truth = np.append(rng.choice(np.flatnonzero(trie.child_count == 0), 3), -1)
    engine = TorchEngine(make_model(rows=ROWS), trie.vocabulary, precision="fp32", threads=0)
    trees = Searcher(engine, trie, [], 5).trees(prompts, truth_paths(trie, truth))
    batch = pack(trie, prompts, trees, truth)
    model = make_model(rows=ROWS, attn_implementation=attention)
    with torch.inference_mode():
        torch.testing.assert_close(child_logprobs(model, batch), batch.teacher, atol=1e-5, rtol=0)
    # the truth's whole path is among the children, and so are the best leaves
    assert int(batch.truth.sum()) == int(trie.depth[truth[:3]].sum())
    assert float(batch.beams.sum()) == float(trie.depth[trees.leaves].sum())
    best = path_scores(batch, batch.teacher)[(batch.beams == 1) & ~batch.needed]
    assert len(best) == trees.leaves.size


def test_half_precision_by_autocast_stays_close(trie: ItemTrie) -> None:
    rng = np.random.default_rng(7)
    model, prompts, trees = make_model(rows=ROWS), random_prompts(rng, 3), random_trees(rng, trie, 3)
    batch = pack(trie, prompts, trees)
    exact = child_logprobs(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = child_logprobs(model, batch)
    assert rounded.dtype == torch.float32
    assert float((rounded - exact).detach().abs().mean()) < 0.1
    rounded.sum().backward()
    assert all(weight.grad is None or bool(weight.grad.isfinite().all()) for weight in model.parameters())


def test_a_batch_moves_to_a_device_whole(trie: ItemTrie) -> None:
    rng = np.random.default_rng(8)
    batch = pack(trie, random_prompts(rng, 2), random_trees(rng, trie, 2))
    moved = batch.to("meta")
    assert {name: (value.device.type, value.shape, value.dtype) for name, value in moved.tensors().items()} == {
        name: ("meta", value.shape, value.dtype) for name, value in batch.tensors().items()
    }
