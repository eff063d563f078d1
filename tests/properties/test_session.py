"""The loop is lossless: speculative = plain = naive beam search, whatever the draft, the batch and the shapes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted_search import naive_beam_search, random_catalog, search
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.search.prefix import SharedPrefix
from specbeam.runtime.types import DraftShape

Ranked = list[tuple[int, float]]


def assert_same(got: Ranked, expected: Ranked) -> None:
    assert [node for node, _ in got] == [node for node, _ in expected]
    np.testing.assert_allclose([score for _, score in got], [score for _, score in expected], atol=1e-4)


@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 5),
    codes=st.integers(1, 6),
    items=st.integers(1, 120),
    width=st.integers(1, 25),
    batch=st.integers(1, 5),
    draft_width=st.integers(1, 30),
    draft_length=st.integers(1, 5),
    disagreement=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    reuse=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_speculative_equals_plain_equals_naive(
    seed: int, length: int, codes: int, items: int, width: int, batch: int, draft_width: int, draft_length: int,
    disagreement: float, reuse: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    trie = ItemTrie.build(random_catalog(rng, items, length, codes))
    target = ScriptedEngine(len(trie.vocabulary), seed=seed)
    draft = ScriptedEngine(len(trie.vocabulary), seed=seed, disagreement=disagreement)
    prompts = [rng.integers(0, 99, rng.integers(1, 8)) for _ in range(batch)]
    shape = DraftShape(draft_width, draft_length)
    speculative, evaluator, _ = search(trie, target, prompts, width, draft=draft, shape=shape, reuse=reuse)
    plain, _, _ = search(trie, target, prompts, width)
    for prompt, fast, slow in zip(prompts, speculative, plain, strict=True):
        naive = naive_beam_search(trie, target, prompt, width)
        assert_same(slow, naive)
        assert_same(fast, naive)
    assert (evaluator.calls <= length).all()
    # A draft that is the target and drafts the same beams foresees every need. (A wider one need not: the best
    # children of few beams may rank below the children of many.)
    exact, evaluator, stats = search(trie, target, prompts, width, draft=target, shape=DraftShape(width, length))
    assert exact == speculative
    assert (evaluator.calls == 1).all()
    assert stats.rejections == 0


def test_a_draft_that_differs_is_really_rejected_and_corrected() -> None:
    rng = np.random.default_rng(5)
    trie = ItemTrie.build(random_catalog(rng, 400, 4, 8))
    target = ScriptedEngine(len(trie.vocabulary), seed=1)
    draft = ScriptedEngine(len(trie.vocabulary), seed=1, disagreement=0.3)
    prompts = [rng.integers(0, 99, 6) for _ in range(8)]
    kept, evaluator, stats = search(trie, target, prompts, 10, draft=draft, shape=DraftShape(15, 3))
    dropped, all_or_nothing, _ = search(trie, target, prompts, 10, draft=draft, shape=DraftShape(15, 3), reuse=False)
    plain, one_by_one, _ = search(trie, target, prompts, 10)
    for a, b, c in zip(kept, dropped, plain, strict=True):
        assert_same(a, c)
        assert_same(b, c)
    assert stats.rejections > 0
    assert 1 < evaluator.calls.mean() < all_or_nothing.calls.mean() < one_by_one.calls.mean() == 4


def test_beam_as_wide_as_the_catalog_ranks_every_item() -> None:
    rng = np.random.default_rng(9)
    trie = ItemTrie.build(random_catalog(rng, 60, 3, 5))
    target = ScriptedEngine(len(trie.vocabulary), seed=2)
    draft = ScriptedEngine(len(trie.vocabulary), seed=2, disagreement=0.5)
    prompt = rng.integers(0, 99, 4)
    scores = {}
    for leaf in range(int(trie.level_start[trie.length]), int(trie.level_start[-1])):
        path = [leaf]
        while trie.parent[path[0]] > 0:
            path.insert(0, int(trie.parent[path[0]]))
        tokens = trie.tokens(np.array(path))
        rows = [target.logprobs_after(np.array([*prompt, *tokens[:d]])) for d in range(len(path))]
        scores[leaf] = sum(float(row[trie.column[node]]) for row, node in zip(rows, path, strict=True))
    ranked, _, _ = search(trie, target, [prompt], 10**6, draft=draft, shape=DraftShape(7, 2))
    assert_same(ranked[0], sorted(scores.items(), key=lambda pair: -pair[1]))


def test_a_beginning_that_all_prompts_share_is_computed_once_and_changes_nothing() -> None:
    rng = np.random.default_rng(13)
    trie = ItemTrie.build(random_catalog(rng, 300, 4, 6))
    target = ScriptedEngine(len(trie.vocabulary), seed=4)
    draft = ScriptedEngine(len(trie.vocabulary), seed=4, disagreement=0.4)
    beginning = rng.integers(0, 99, 20)
    prompts = [np.concatenate([beginning, rng.integers(0, 99, n)]) for n in (1, 5, 3)]
    assert SharedPrefix(target, beginning).length == 20
    apart, _, _ = search(trie, target, prompts, 10, draft=draft, shape=DraftShape(12, 3))
    shared, _, stats = search(trie, target, prompts, 10, draft=draft, shape=DraftShape(12, 3), shared=20)
    assert shared == apart
    assert stats.rejections > 0
    for prompt, ranked in zip(prompts, shared, strict=True):
        assert_same(ranked, naive_beam_search(trie, target, prompt, 10))


def test_leaves_are_never_evaluated_and_nothing_is_evaluated_twice() -> None:
    rng = np.random.default_rng(11)
    trie = ItemTrie.build(random_catalog(rng, 300, 4, 6))
    target = ScriptedEngine(len(trie.vocabulary), seed=3)
    _, evaluator, _ = search(trie, target, [rng.integers(0, 99, 4)], 10, draft=target, shape=DraftShape(10, 9))
    assert evaluator.calls.tolist() == [1]
    assert evaluator.evaluated.tolist() == [min(10, int(trie.level_start[2]) - 1) + 10 + 10]
