"""Exact sampling without replacement: against the enumerated distribution, and the same whatever is drafted."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chi_square import misfit
from scripted_search import END, Ranked, all_leaves, live_mask, ragged_catalog, random_catalog, search
from specbeam.catalog.trie import PAD, ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.options import Verification
from specbeam.runtime.types import DraftShape

DRAWS = 20_000
PROMPT = np.array([3, 4])
EQUAL = ItemTrie.build(np.array([[1, 11], [1, 12], [1, 13], [2, 11], [2, 12], [3, 11], [3, 12], [3, 13], [4, 13]]))
UNEQUAL = ItemTrie.build(
    np.array(
        [[1, END, PAD, PAD], [1, 2, END, PAD], [1, 2, 3, END], [2, END, PAD, PAD], [3, 1, END, PAD],
         [3, 2, END, PAD], [3, 2, 2, END]]
    )
)  # fmt: skip
CATALOGS = {"equal": EQUAL, "unequal": UNEQUAL}


def engine(trie: ItemTrie, disagreement: float = 0.0) -> ScriptedEngine:
    return ScriptedEngine(len(trie.vocabulary), seed=1, disagreement=disagreement, sharpness=1.0)


def without_replacement(leaves: Ranked, k: int) -> dict[tuple[int, ...], float]:
    """Plackett-Luce: the probability of every ordered choice of k leaves, drawn one after another."""
    p = {leaf: float(np.exp(score)) for leaf, score in leaves}
    result = {}
    for chosen in permutations(p, k):
        left, probability = 1.0, 1.0
        for leaf in chosen:
            probability *= p[leaf] / left
            left -= p[leaf]
        result[chosen] = probability
    return result


def drawn(trie: ItemTrie, k: int, temperature: float = 1.0, seed: int = 5, **more: object) -> Counter[tuple[int, ...]]:
    """How often `DRAWS` users got every list."""
    verification = Verification("sampled", temperature=temperature, seed=seed)
    lists, _, _ = search(trie, engine(trie), [PROMPT] * DRAWS, k, verification=verification, **more)  # type: ignore[arg-type]
    return Counter(tuple(leaf for leaf, _ in ranked) for ranked in lists)


@pytest.mark.parametrize("catalog", CATALOGS)
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("drafting", [False, True])
def test_lists_follow_the_enumerated_distribution(catalog: str, k: int, temperature: float, drafting: bool) -> None:
    trie = CATALOGS[catalog]
    more = {"draft": engine(trie, 0.7), "shape": DraftShape(2, 2)} if drafting else {}
    counts = drawn(trie, k, temperature, **more)

    def expected(t: float) -> dict[tuple[int, ...], float]:
        return without_replacement(all_leaves(trie, engine(trie), PROMPT, scoring="constrained", temperature=t), k)

    assert misfit(counts, expected(temperature)) < 1
    for wrong in (0.8, 1.2):  # the test can fail: another temperature is told apart
        assert misfit(counts, expected(temperature * wrong)) > 2


@pytest.mark.parametrize("catalog", CATALOGS)
def test_a_filter_draws_from_what_is_left_renormalised(catalog: str) -> None:
    trie = CATALOGS[catalog]
    leaves = np.flatnonzero(trie.child_count == 0)
    live = live_mask(trie, leaves[::2].tolist() + leaves[-2:].tolist())
    counts = drawn(trie, 2, live=[live] * DRAWS, draft=engine(trie, 0.7), shape=DraftShape(2, 2))
    allowed = all_leaves(trie, engine(trie), PROMPT, scoring="constrained", live=live)
    assert 4 <= len(allowed) < trie.identifiers
    assert misfit(counts, without_replacement(allowed, 2)) < 1
    # ... which is not the whole catalog's distribution with the forbidden leaves struck out
    p = {leaf: np.exp(s) for leaf, s in all_leaves(trie, engine(trie), PROMPT, scoring="constrained") if live[leaf]}
    struck_out = [(leaf, float(np.log(value / sum(p.values())))) for leaf, value in p.items()]
    assert misfit(counts, without_replacement(struck_out, 2)) > 2


def test_the_order_of_a_list_is_the_order_of_the_draws() -> None:
    counts = drawn(EQUAL, 2)
    leaves = all_leaves(EQUAL, engine(EQUAL), PROMPT, scoring="constrained")
    by_score = dict(leaves)
    sorted_lists: Counter[tuple[int, ...]] = Counter()
    for ranked, count in counts.items():
        sorted_lists[tuple(sorted(ranked, key=lambda leaf: -by_score[leaf]))] += count
    assert misfit(sorted_lists, without_replacement(leaves, 2)) > 10


def test_noise_that_ignores_the_parent_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "specbeam.runtime.search.nodes.perturbed", lambda parent, which, logprob, noise: logprob + noise
    )
    leaves = all_leaves(EQUAL, engine(EQUAL), PROMPT, scoring="constrained")
    assert misfit(drawn(EQUAL, 2), without_replacement(leaves, 2)) > 2


@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 5),
    codes=st.integers(1, 5),
    items=st.integers(1, 100),
    widths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    shapes=st.lists(st.builds(DraftShape, st.integers(1, 25), st.integers(1, 5)), min_size=2, max_size=2),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 3.0]),
    filtered=st.booleans(),
    reuse=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_same_seed_same_answer_whatever_is_drafted_and_whoever_else_is_there(
    seed: int, length: int, codes: int, items: int, widths: list[int], shapes: list[DraftShape], temperature: float,
    filtered: bool, reuse: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    trie = ItemTrie.build(ragged_catalog(rng, items, length, codes))
    target = ScriptedEngine(len(trie.vocabulary), seed=seed)
    prompts = [rng.integers(0, 99, rng.integers(1, 8)) for _ in widths]
    leaves = np.flatnonzero(trie.child_count == 0)
    live = [live_mask(trie, leaves[rng.random(len(leaves)) < 0.5].tolist()) if filtered else None for _ in widths]
    keys = rng.integers(0, 2**63, len(widths)).tolist()
    verification = Verification("sampled", temperature=temperature, seed=seed)
    draft = ScriptedEngine(len(trie.vocabulary), seed=seed, disagreement=0.5)
    plain, _, _ = search(trie, target, prompts, widths, verification=verification, live=live, keys=keys)
    for shape in shapes:
        fast, evaluator, _ = search(
            trie, target, prompts, widths, verification=verification, live=live, keys=keys, draft=draft, shape=shape,
            reuse=reuse,
        )  # fmt: skip
        assert_same(fast, plain)
        assert (evaluator.calls <= trie.length).all()
    for i, width in enumerate(widths):
        mask, available = live[i], trie.identifiers
        if mask is not None:
            available = int((mask & (trie.child_count == 0)).sum())
            assert all(mask[leaf] for leaf, _ in plain[i])
        assert len({leaf for leaf, _ in plain[i]}) == len(plain[i]) == min(width, available)
        alone, _, _ = search(
            trie, target, [prompts[i]], width, verification=verification, live=[mask], keys=[keys[i]], draft=draft,
            shape=shapes[0],
        )  # fmt: skip
        assert_same(alone, [plain[i]])


def assert_same(got: list[Ranked], expected: list[Ranked]) -> None:
    assert [[leaf for leaf, _ in ranked] for ranked in got] == [[leaf for leaf, _ in ranked] for ranked in expected]
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose([score for _, score in a], [score for _, score in b], atol=1e-6)


def test_seeds_and_users_draw_anew() -> None:
    trie = ItemTrie.build(random_catalog(np.random.default_rng(0), 300, 3, 8))
    target, users = engine(trie), 50

    def lists(seed: int, keys: list[int]) -> list[tuple[int, ...]]:
        verification = Verification("sampled", seed=seed)
        ranked, _, _ = search(trie, target, [PROMPT] * len(keys), 5, verification=verification, keys=keys)
        return [tuple(leaf for leaf, _ in one) for one in ranked]

    first = lists(0, list(range(users)))
    assert lists(0, list(range(users))) == first
    assert lists(0, list(range(users))[::-1]) == first[::-1]
    assert lists(0, [7] * 3) == [first[7]] * 3
    assert len(set(first)) == users
    # ... and a seed and a user that change places are two draws, as (1, 0) and (0, 1) here
    assert not set(lists(1, list(range(users)))) & set(first)


def test_speculation_is_put_right() -> None:
    trie = ItemTrie.build(random_catalog(np.random.default_rng(1), 300, 3, 8))
    verification, prompts = Verification("sampled", seed=2), [PROMPT] * 20
    plain, before, _ = search(trie, engine(trie), prompts, 6, verification=verification)
    fast, after, stats = search(
        trie, engine(trie), prompts, 6, verification=verification, draft=engine(trie, 0.5), shape=DraftShape(10, 2)
    )
    assert_same(fast, plain)
    assert stats.rejections > 0
    assert after.calls.sum() < before.calls.sum()
