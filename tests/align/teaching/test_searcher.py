"""Beam trees: the nodes that plain beam search evaluates, what the engine gives their children; and on disk."""

import errno
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

import scripted_recommender
from scripted_search import naive_beam_search, ragged_catalog, random_catalog
from specbeam.align.teaching.searcher import Searcher, truth_paths
from specbeam.align.teaching.trees import TeacherSettings, Trees, TreeStore, joined
from specbeam.catalog.errors import DiskFullError, SpecBeamError
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.engines.torch import TorchEngine
from specbeam.runtime.types import NodeList
from tiny_models import make_model

Row = tuple[list[int], list[list[float]], list[int]]  # nodes, log-probabilities of each one's children, leaves


class Book:
    """Log-probabilities by one plain sequence a question, and what was asked: how naive searches are watched."""

    def __init__(self, source: ScriptedEngine | PreTrainedModel, trie: ItemTrie) -> None:
        self._source, self._trie = source, trie
        self.asked: list[list[int]] = []

    def logprobs_after(self, tokens: np.ndarray) -> np.ndarray:
        self.asked.append(tokens.tolist())
        if isinstance(self._source, ScriptedEngine):
            return self._source.logprobs_after(tokens)
        with torch.inference_mode():
            logits = self._source(torch.from_numpy(tokens)[None]).logits[0, -1]
        return logits.log_softmax(-1).numpy()[self._trie.vocabulary]


def walk(trie: ItemTrie, tokens: Sequence[int]) -> int:
    """The node of a prefix."""
    node = 0
    for token in tokens:
        _, children = trie.children(np.array([node]))
        node = int(children[trie.tokens(children) == token][0])
    return node


def path(trie: ItemTrie, node: int) -> list[int]:
    """A node's tokens."""
    tokens: list[int] = []
    while node:
        tokens, node = [int(trie.tokens(np.array(node))), *tokens], int(trie.parent[node])
    return tokens


def by_the_book(trie: ItemTrie, book: Book, prompt: np.ndarray, width: int, also: Sequence[int] = ()) -> Row:
    """One prompt's tree: beam search over plain sequences, and `also` with their ancestors."""
    book.asked.clear()
    ranked = naive_beam_search(trie, book, prompt, width)  # type: ignore[arg-type]
    nodes = {walk(trie, tokens[len(prompt) :]) for tokens in book.asked}
    for node in also:
        while node >= 0 and trie.child_count[node]:  # leaves are left out
            nodes.add(int(node))
            node = trie.parent[node]
    logprobs = []
    for node in sorted(nodes):
        _, children = trie.children(np.array([node]))
        logprobs.append(book.logprobs_after(np.array([*prompt, *path(trie, node)]))[trie.column[children]].tolist())
    return sorted(nodes), logprobs, [leaf for leaf, _ in ranked]


def rows_of(trie: ItemTrie, trees: Trees) -> list[Row]:
    """The trees of each prompt by itself."""
    rows, node, logprob = [], 0, 0
    for count, leaves in zip(trees.count, trees.leaves, strict=True):
        nodes, children = trees.node[node : node + count].tolist(), []
        for one in nodes:
            children.append(trees.logprob[logprob : logprob + trie.child_count[one]].tolist())
            logprob += trie.child_count[one]
        rows.append((nodes, children, leaves[leaves >= 0].tolist()))
        node += count
    assert (node, logprob) == (len(trees.node), len(trees.logprob))
    return rows


def random_trie(rng: np.random.Generator, ragged: bool) -> ItemTrie:
    make = ragged_catalog if ragged else random_catalog
    return ItemTrie.build(make(rng, int(rng.integers(1, 40)), int(rng.integers(1, 5)), int(rng.integers(1, 5))))


def random_prompts(rng: np.random.Generator, batch: int, prefix: Sequence[int]) -> list[np.ndarray]:
    return [np.concatenate([prefix, rng.integers(3, 30, rng.integers(1, 6))]).astype(np.int64) for _ in range(batch)]


# --- searching


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.booleans(), st.integers(1, 8), st.integers(1, 4), st.sampled_from([0, 2, 20]))
def test_trees_hold_what_plain_beam_search_evaluates(
    seed: int, ragged: bool, width: int, batch: int, shared: int
) -> None:
    rng = np.random.default_rng(seed)
    trie = random_trie(rng, ragged)
    engine = ScriptedEngine(len(trie.vocabulary), seed=seed % 97)
    prefix = rng.integers(3, 30, shared).tolist()
    prompts = random_prompts(rng, batch, prefix)
    also = [rng.integers(0, len(trie.parent), rng.integers(0, 4)) for _ in prompts]
    listed = NodeList(np.repeat(np.arange(batch), [len(nodes) for nodes in also]), np.concatenate(also))
    searcher, book = Searcher(engine, trie, prefix, width), Book(engine, trie)
    for given_nodes, extra in ((None, [()] * batch), (listed, also)):
        trees = searcher.trees(prompts, given_nodes)
        assert len(trees) == batch
        assert trees.leaves.shape == (batch, min(width, trie.identifiers))
        expected = [by_the_book(trie, book, prompt, width, nodes) for prompt, nodes in zip(prompts, extra, strict=True)]
        assert rows_of(trie, trees) == expected  # to the last bit


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.booleans(), st.integers(1, 4))
def test_another_engine_is_asked_about_the_same_nodes(seed: int, ragged: bool, batch: int) -> None:
    rng = np.random.default_rng(seed)
    trie = random_trie(rng, ragged)
    engines = [ScriptedEngine(len(trie.vocabulary), seed=seed % 97, disagreement=amount) for amount in (0.0, 0.5)]
    prompts = random_prompts(rng, batch, [])
    trees = Searcher(engines[0], trie, [], 3).trees(prompts)
    asked = Searcher(engines[1], trie, [], 1).at(prompts, trees)
    book = Book(engines[1], trie)
    for prompt, got, tree in zip(prompts, rows_of(trie, asked), rows_of(trie, trees), strict=True):
        nodes, logprobs, _ = by_the_book(trie, book, prompt, 0, tree[0])
        assert got == (nodes, logprobs, tree[2])
        assert nodes == tree[0]


@pytest.mark.parametrize("ragged", [False, True])
def test_trees_of_a_model_are_those_of_plain_sequences(ragged: bool) -> None:
    rng = np.random.default_rng(5)
    trie = ItemTrie.build((ragged_catalog if ragged else random_catalog)(rng, 60, 3, 5))
    model = make_model(rows=30)
    book = Book(model, trie)
    prompts = random_prompts(rng, 4, [2])
    also = truth_paths(trie, rng.choice(np.flatnonzero(trie.child_count == 0), 4))
    expected = [by_the_book(trie, book, p, 6, also.node[also.request == i]) for i, p in enumerate(prompts)]
    engine = TorchEngine(make_model(rows=30), trie.vocabulary, precision="fp32", threads=0)
    trees = Searcher(engine, trie, [2], 6).trees(prompts, also)
    for (nodes, children, leaves), (nodes_, children_, leaves_) in zip(rows_of(trie, trees), expected, strict=True):
        assert (nodes, leaves) == (nodes_, leaves_)
        np.testing.assert_allclose(np.concatenate(children), np.concatenate(children_), atol=1e-5)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("shape", [None, scripted_recommender.SHAPE])
def test_leaves_are_the_recommenders_list(ragged: bool, shape: scripted_recommender.DraftShape | None) -> None:
    rng = np.random.default_rng(6)
    rows = (ragged_catalog if ragged else random_catalog)(rng, 50, 3, 4)  # some items share an identifier
    recommender = scripted_recommender.make(rows, shape=shape)
    trie, names = recommender.trie, recommender.catalog.item_ids
    histories = [[names[i] for i in rng.integers(0, 50, rng.integers(1, 6))] for _ in range(5)]
    prompts = [recommender.encode(history).prompt for history in histories]
    for k in (1, 7, 50):
        trees = Searcher(recommender._search._target.engine, trie, scripted_recommender.PREFIX, k).trees(prompts)
        for leaves, result in zip(trees.leaves, recommender.recommend(histories, k), strict=True):
            _, items = trie.items_of(leaves[leaves >= 0])
            assert [names[item] for item in items[:k]] == [entry.item for entry in result.items]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_truth_paths_are_the_inner_nodes_above_a_leaf(seed: int, ragged: bool) -> None:
    rng = np.random.default_rng(seed)
    trie = random_trie(rng, ragged)
    leaves = np.where(rng.random(5) < 0.3, -1, rng.choice(np.flatnonzero(trie.child_count == 0), 5))
    paths = truth_paths(trie, leaves)
    for row, leaf in enumerate(leaves):
        above, node = set(), int(trie.parent[leaf]) if leaf >= 0 else 0
        while node > 0:
            above.add(node)
            node = int(trie.parent[node])
        got = paths.node[paths.request == row].tolist()
        assert (set(got), len(got)) == (above, len(above))


# --- on disk


def make_trees(rng: np.random.Generator, trie: ItemTrie, prompts: int, width: int) -> Trees:
    engine = ScriptedEngine(len(trie.vocabulary), seed=int(rng.integers(1000)))
    return Searcher(engine, trie, [], width).trees(random_prompts(rng, prompts, []))


def store(folder: Path, trie: ItemTrie, samples: int = 7, part: int = 3, width: int = 4) -> TreeStore:
    return TreeStore(folder, trie, TeacherSettings(fingerprint="x", width=width, samples=samples, part=part))


def half(rows: list[Row]) -> list[Row]:
    return [(n, [np.float16(values).astype(np.float32).tolist() for values in c], leaves) for n, c, leaves in rows]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.booleans(), st.integers(1, 5), st.data())
def test_what_is_written_is_read_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int, ragged: bool, part: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    trie = random_trie(rng, ragged)
    trees = store(tmp_path_factory.mktemp("trees"), trie, part=part)
    assert trees.parts == -(-7 // part)
    expected: list[Row] = []
    for number in range(trees.parts):
        written = make_trees(rng, trie, len(trees.span(number)), 4)
        trees.write(number, written)
        expected += half(rows_of(trie, written))
    assert len(expected) == 7
    order = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=10))
    read = trees.read(order)
    assert read.logprob.dtype == np.float32
    assert rows_of(trie, read) == [expected[sample] for sample in order]


@pytest.fixture
def trie() -> ItemTrie:
    return ItemTrie.build(random_catalog(np.random.default_rng(0), 30, 3, 4))


def test_parts_are_missing_until_they_are_written(tmp_path: Path, trie: ItemTrie) -> None:
    trees, rng = store(tmp_path / "deep" / "trees", trie), np.random.default_rng(1)
    assert [list(trees.span(part)) for part in range(trees.parts)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert (trees.missing(), trees.bytes()) == ([0, 1, 2], 0)
    trees.write(1, make_trees(rng, trie, 3, 4))
    again = store(tmp_path / "deep" / "trees", trie)
    assert trees.missing() == again.missing() == [0, 2]
    files = list((tmp_path / "deep" / "trees").iterdir())
    assert trees.bytes() == sum(file.stat().st_size for file in files) > 0
    assert len(again.read([4])) == 1
    with pytest.raises(SpecBeamError, match=r"part-00002.safetensors cannot be read"):
        again.read([6])
    for part in again.missing():
        again.write(part, make_trees(rng, trie, len(again.span(part)), 4))
    assert trees.missing() == []


def test_a_part_that_is_written_anew_is_read_anew(tmp_path: Path, trie: ItemTrie) -> None:
    trees, rng = store(tmp_path, trie), np.random.default_rng(2)
    trees.write(0, make_trees(rng, trie, 3, 4))
    trees.read([0])
    second = make_trees(rng, trie, 3, 4)
    trees.write(0, second)
    assert rows_of(trie, trees.read([0, 1, 2])) == half(rows_of(trie, second))


@pytest.mark.parametrize("damage", [b"", b"\x00" * 64, b"not a tensor in sight", "half", "header"])
def test_a_damaged_part_is_named(tmp_path: Path, trie: ItemTrie, damage: bytes | str) -> None:
    trees = store(tmp_path, trie)
    trees.write(0, make_trees(np.random.default_rng(3), trie, 3, 4))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    cut = {"half": whole[: len(whole) // 2], "header": whole[:20]}
    file.write_bytes(cut[damage] if isinstance(damage, str) else damage)
    with pytest.raises(SpecBeamError, match=r"part-00000.safetensors cannot be read: .* Delete it and run again"):
        store(tmp_path, trie).read([1])


def test_a_full_disk_leaves_no_part(tmp_path: Path, trie: ItemTrie, monkeypatch: pytest.MonkeyPatch) -> None:
    trees, rng = store(tmp_path, trie), np.random.default_rng(4)
    trees.write(0, make_trees(rng, trie, 3, 4))
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("specbeam.catalog.files.os.fsync", full)
    for part in (0, 1):
        with pytest.raises(DiskFullError, match="No space left on "):
            trees.write(part, make_trees(rng, trie, 3, 4))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == kept
    assert trees.missing() == [1, 2]


def test_batches_are_joined_as_they_were_cut(trie: ItemTrie) -> None:
    rng = np.random.default_rng(5)
    parts = [make_trees(rng, trie, count, width) for count, width in ((2, 4), (1, 6), (3, 1))]
    whole = joined(parts)
    assert whole.leaves.shape == (6, 6)
    assert rows_of(trie, whole) == [row for part in parts for row in rows_of(trie, part)]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.booleans(), st.lists(st.integers(0, 4), max_size=8))
def test_some_trees_are_taken_in_any_order(seed: int, ragged: bool, which: list[int]) -> None:
    rng = np.random.default_rng(seed)
    trie = random_trie(rng, ragged)
    trees = make_trees(rng, trie, 5, 3)
    rows = rows_of(trie, trees)
    assert rows_of(trie, trees.taken(np.array(which, np.int64), trie)) == [rows[prompt] for prompt in which]
