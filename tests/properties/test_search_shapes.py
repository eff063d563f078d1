"""Unequal lengths, both scorings, filters and lists of different lengths: always the naive beam search's answer."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted_search import Ranked, all_leaves, live_mask, naive_beam_search, ragged_catalog, random_catalog, search
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.options import Verification
from specbeam.runtime.types import DraftShape, Round


def assert_same(got: Ranked, expected: Ranked) -> None:
    assert [node for node, _ in got] == [node for node, _ in expected]
    np.testing.assert_allclose([score for _, score in got], [score for _, score in expected], atol=1e-4)


def leaves_of(trie: ItemTrie) -> np.ndarray:
    return np.flatnonzero(trie.child_count == 0)


@given(
    seed=st.integers(0, 10**6),
    ragged=st.booleans(),
    length=st.integers(1, 5),
    codes=st.integers(1, 5),
    items=st.integers(1, 100),
    widths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    shape=st.builds(DraftShape, st.integers(1, 25), st.integers(1, 5)),
    disagreement=st.sampled_from([0.0, 0.3, 1.0]),
    scoring=st.sampled_from(["full", "constrained"]),
    filtered=st.booleans(),
    reuse=st.booleans(),
)
@settings(max_examples=250, deadline=None)
def test_speculative_equals_plain_equals_naive(
    seed: int, ragged: bool, length: int, codes: int, items: int, widths: list[int], shape: DraftShape,
    disagreement: float, scoring: str, filtered: bool, reuse: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    make = ragged_catalog if ragged else random_catalog
    trie = ItemTrie.build(make(rng, items, length, codes))
    target = ScriptedEngine(len(trie.vocabulary), seed=seed)
    draft = ScriptedEngine(len(trie.vocabulary), seed=seed, disagreement=disagreement)
    prompts = [rng.integers(0, 99, rng.integers(1, 8)) for _ in widths]
    live = [None if not filtered or rng.random() < 0.3 else some_live(trie, rng) for _ in widths]
    verification = Verification(scoring=scoring)  # type: ignore[arg-type]
    options = {"verification": verification, "live": live}
    fast, evaluator, _ = search(trie, target, prompts, widths, draft=draft, shape=shape, reuse=reuse, **options)
    plain, _, _ = search(trie, target, prompts, widths, **options)
    for i, (prompt, width) in enumerate(zip(prompts, widths, strict=True)):
        naive = naive_beam_search(trie, target, prompt, width, scoring=scoring, live=live[i])
        assert_same(plain[i], naive)
        assert_same(fast[i], naive)
    assert (evaluator.calls <= trie.length).all()


def some_live(trie: ItemTrie, rng: np.random.Generator) -> np.ndarray:
    """A filter that leaves some of the leaves, at times none."""
    leaves = leaves_of(trie)
    return live_mask(trie, leaves[rng.random(len(leaves)) < rng.choice([0.0, 0.2, 0.7])].tolist())


@given(seed=st.integers(0, 10**6), scoring=st.sampled_from(["full", "constrained"]), filtered=st.booleans())
@settings(max_examples=60, deadline=None)
def test_all_of_a_catalog_of_unequal_lengths_is_brute_force(seed: int, scoring: str, filtered: bool) -> None:
    rng = np.random.default_rng(seed)
    trie = ItemTrie.build(ragged_catalog(rng, 50, 4, 3))
    target = ScriptedEngine(len(trie.vocabulary), seed=seed)
    draft = ScriptedEngine(len(trie.vocabulary), seed=seed, disagreement=0.4)
    prompt = rng.integers(0, 99, 5)
    live = some_live(trie, rng) if filtered else None
    ranked, _, _ = search(
        trie, target, [prompt], 10**6, draft=draft, shape=DraftShape(7, 2), live=[live],
        verification=Verification(scoring=scoring),  # type: ignore[arg-type]
    )  # fmt: skip
    assert_same(ranked[0], all_leaves(trie, target, prompt, scoring=scoring, live=live))


def test_a_filter_gives_what_a_rebuilt_catalog_gives() -> None:
    rng = np.random.default_rng(8)
    catalog = ragged_catalog(rng, 300, 4, 5)
    kept = rng.random(300) < 0.5
    whole, rebuilt = ItemTrie.build(catalog), ItemTrie.build(catalog[kept])
    allowed = np.unique(whole.leaf_of[kept])
    prompts = [rng.integers(0, 99, 5) for _ in range(4)]

    def tokens(trie: ItemTrie, ranked: Ranked) -> list[tuple[list[int], float]]:
        rows = trie.item_tokens()
        return [(rows[int(trie.items_of(np.array([leaf]))[1][0])].tolist(), round(s, 4)) for leaf, s in ranked]

    for verification in (
        Verification(), Verification(scoring="constrained"), Verification("sampled", seed=3),
        Verification("sampled", seed=4, temperature=0.5),
    ):  # fmt: skip
        # columns are numbered by the catalog's tokens: the scripted engine must see the same ones
        assert whole.vocabulary.tolist() == rebuilt.vocabulary.tolist()
        target = ScriptedEngine(len(whole.vocabulary), seed=1)
        draft = ScriptedEngine(len(whole.vocabulary), seed=1, disagreement=0.5)
        live = [live_mask(whole, allowed.tolist())] * 4
        a, _, stats = search(
            whole, target, prompts, 12, draft=draft, shape=DraftShape(9, 2), live=live, verification=verification
        )
        b, _, _ = search(rebuilt, target, prompts, 12, verification=verification)
        assert [tokens(whole, x) for x in a] == [tokens(rebuilt, y) for y in b]
        assert stats.rejections > 0


def test_a_request_stops_when_nothing_that_runs_can_be_among_the_finished() -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        trie = ItemTrie.build(ragged_catalog(rng, 100, 5, 5))
        target, prompt = ScriptedEngine(len(trie.vocabulary), seed=seed), rng.integers(0, 99, 4)
        rounds: list[Round] = []
        ranked, _, _ = search(trie, target, [prompt], 2, rounds=rounds)
        assert_same(ranked[0], naive_beam_search(trie, target, prompt, 2))
        for one in rounds:
            assert one.before.running.scores[0, 0] > one.before.finished.scores[0, -1]


def test_only_children_cost_nothing_under_constrained_scoring() -> None:
    # three first tokens, below each one path: the target has to be asked about the first token only
    trie = ItemTrie.build(np.array([[1, 11, 21, 31], [2, 12, 22, 32], [3, 13, 23, 33]]))
    target = ScriptedEngine(len(trie.vocabulary), seed=1)
    prompt = np.array([7, 8])
    ranked, evaluator, _ = search(trie, target, [prompt], 3, verification=Verification(scoring="constrained"))
    assert_same(ranked[0], all_leaves(trie, target, prompt, scoring="constrained"))
    assert np.isclose(np.exp([score for _, score in ranked[0]]).sum(), 1)
    assert (evaluator.calls.tolist(), evaluator.evaluated.tolist()) == ([1], [0])
    _, evaluator, _ = search(trie, target, [prompt], 3)
    assert (evaluator.calls.tolist(), evaluator.evaluated.tolist()) == ([4], [9])
    # a filter can make a node an only child
    live = live_mask(trie, leaves_of(trie)[:1].tolist())
    ranked, evaluator, _ = search(
        trie, target, [prompt], 3, live=[live], verification=Verification(scoring="constrained")
    )
    assert [score for _, score in ranked[0]] == [0.0]
    assert evaluator.calls.tolist() == [0]
