"""Relaxed verification: against an enumeration of its own procedure, and valid lists whatever happens."""

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chi_square import misfit
from relaxed_procedure import Distribution, Nodes, Procedure
from scripted_search import live_mask, ragged_catalog, random_catalog, search
from specbeam.catalog.trie import PAD, ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.options import Verification
from specbeam.runtime.search.relaxed import RelaxedVerifier
from specbeam.runtime.types import DraftShape

DRAWS = 20_000
PROMPT = np.array([3, 4])
TWO_LEVELS = ItemTrie.build(np.array([[1, 11], [1, 12], [2, 11], [2, 13], [3, 12], [3, 14], [4, 11], [4, 12], [4, 13],
                                      [5, 11], [5, 14]]))  # fmt: skip
THREE_LEVELS = ItemTrie.build(np.array([[a, b, c] for a in (1, 2, 3, 4) for b in (11, 12) for c in (21, 22 + a)]))
NARROW = ItemTrie.build(np.array([[a, b, c] for a in (1, 2) for b in (11, 12, 13) for c in (21, 22 + a)]))
UNEQUAL = ItemTrie.build(
    np.array([[1, 11, PAD], [1, 12, 21], [1, 12, 22], [2, PAD, PAD], [3, 11, PAD], [3, 12, PAD], [3, 13, 21],
              [3, 13, 22], [4, 11, PAD], [4, 12, PAD]])
)  # fmt: skip
CATALOGS = {
    "two levels": TWO_LEVELS, "three levels": THREE_LEVELS, "two first tokens": NARROW, "unequal": UNEQUAL,
}  # fmt: skip


def pair(trie: ItemTrie, disagreement: float, sharpness: float = 1.0) -> tuple[ScriptedEngine, ScriptedEngine]:
    """A target, and a draft that agrees with it so far."""
    columns = len(trie.vocabulary)
    draft = ScriptedEngine(columns, seed=2, disagreement=disagreement, sharpness=sharpness)
    return ScriptedEngine(columns, seed=2, sharpness=sharpness), draft


def drawn_sets(
    trie: ItemTrie, disagreement: float, k: int, shape: DraftShape | None, temperature: float = 1.0,
    scoring: Any = "full",
) -> Counter[Nodes]:  # fmt: skip
    target, draft = pair(trie, disagreement)
    verification = Verification("relaxed", seed=4, temperature=temperature, scoring=scoring)
    lists, _, _ = search(
        trie, target, [PROMPT] * DRAWS, k, verification=verification, shape=shape, draft=draft if shape else None
    )
    return Counter(frozenset(leaf for leaf, _ in ranked) for ranked in lists)


@cache
def enumerated(
    catalog: str, disagreement: float, k: int, shape: DraftShape | None, temperature: float = 1.0, scoring: str = "full"
) -> Distribution:
    trie = CATALOGS[catalog]
    return Procedure(trie, *pair(trie, disagreement), PROMPT, k, shape, temperature, scoring).result()


@pytest.mark.parametrize(
    ("catalog", "k", "shape"),
    [
        ("two levels", 2, DraftShape(3, 1)),
        ("two levels", 2, DraftShape(2, 3)),
        ("two levels", 1, DraftShape(4, 1)),
        ("two levels", 3, DraftShape(2, 1)),  # fewer drafted than wanted: always rejected, the residual runs out
        ("three levels", 2, DraftShape(3, 1)),
        ("three levels", 2, DraftShape(3, 2)),
        ("three levels", 2, DraftShape(2, 2)),
        ("three levels", 3, DraftShape(3, 2)),  # who was rejected may come back, with nothing left to trust below
        ("two first tokens", 3, DraftShape(4, 2)),  # fewer children than wanted: all of them accepted is enough
        ("three levels", 2, None),
        ("unequal", 2, DraftShape(3, 2)),
        ("unequal", 3, DraftShape(2, 2)),
        ("unequal", 3, DraftShape(4, 3)),
        ("unequal", 3, None),
    ],
)
@pytest.mark.parametrize(("temperature", "scoring"), [(1.0, "full"), (0.6, "constrained")])
def test_lists_follow_the_enumerated_procedure(
    catalog: str, k: int, shape: DraftShape | None, temperature: float, scoring: str
) -> None:
    counts = drawn_sets(CATALOGS[catalog], 0.6, k, shape, temperature, scoring)
    assert misfit(counts, enumerated(catalog, 0.6, k, shape, temperature, scoring)) < 1
    # the test can fail: other temperatures are told apart, and so is a draft that would always be accepted
    assert misfit(counts, enumerated(catalog, 0.6, k, shape, temperature * 0.8, scoring)) > 2
    if shape is not None:
        assert misfit(counts, enumerated(catalog, 0.0, k, shape, temperature, scoring)) > 2


def total_variation(a: Distribution, b: Distribution) -> float:
    return sum(abs(a.get(x, 0.0) - b.get(x, 0.0)) for x in a.keys() | b.keys()) / 2


@pytest.mark.parametrize("catalog", ["two levels", "three levels"])
def test_what_is_exact_and_what_is_not(catalog: str) -> None:
    truth = enumerated(catalog, 0.6, 2, None)
    # K drawn of a draft that is the target, all accepted: K drawn from the target
    assert total_variation(enumerated(catalog, 0.0, 2, DraftShape(2, 2)), truth) < 1e-9
    # more than K drawn, even from the target itself: nearer to uniform than the target is
    assert total_variation(enumerated(catalog, 0.0, 2, DraftShape(3, 2)), truth) > 0.02
    assert total_variation(enumerated(catalog, 0.6, 2, DraftShape(2, 2)), truth) > 0.02
    # one sequence, one drawn: the sampling verification of ordinary speculative decoding, which is exact
    assert total_variation(enumerated(catalog, 0.6, 1, DraftShape(1, 2)), enumerated(catalog, 0.6, 1, None)) < 1e-9


@given(
    seed=st.integers(0, 10**6),
    ragged=st.booleans(),
    length=st.integers(1, 5),
    codes=st.integers(1, 5),
    items=st.integers(1, 100),
    widths=st.lists(st.one_of(st.integers(1, 8), st.integers(9, 40)), min_size=1, max_size=4),
    shape=st.one_of(st.none(), st.builds(DraftShape, st.sampled_from([1, 2, 5, 12, 200]), st.integers(1, 5))),
    disagreement=st.sampled_from([0.0, 0.3, 1.0]),
    temperature=st.sampled_from([0.05, 0.5, 1.0, 5.0]),
    sharpness=st.sampled_from([0.0, 1.0, 4.0, 40.0]),
    scoring=st.sampled_from(["full", "constrained"]),
    filtered=st.booleans(),
    reuse=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_lists_are_valid_and_a_function_of_seed_user_and_prompt(
    seed: int, ragged: bool, length: int, codes: int, items: int, widths: list[int], shape: DraftShape | None,
    disagreement: float, temperature: float, sharpness: float, scoring: Any, filtered: bool, reuse: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    trie = ItemTrie.build((ragged_catalog if ragged else random_catalog)(rng, items, length, codes))
    target, draft = pair(trie, disagreement, sharpness)
    prompts = [rng.integers(0, 99, rng.integers(1, 8)) for _ in widths]
    leaves = np.flatnonzero(trie.child_count == 0)
    share = rng.choice([0.0, 0.1, 0.6])
    live = [live_mask(trie, leaves[rng.random(len(leaves)) < share].tolist()) if filtered else None for _ in widths]
    keys = rng.integers(0, 2**63, len(widths)).tolist()
    options: dict[str, Any] = {
        "verification": Verification("relaxed", seed=seed, temperature=temperature, scoring=scoring),
        "draft": None if shape is None else draft, "shape": shape, "reuse": reuse,
    }  # fmt: skip
    lists, evaluator, _ = search(trie, target, prompts, widths, live=live, keys=keys, **options)
    for ranked, width, mask in zip(lists, widths, live, strict=True):
        allowed = leaves if mask is None else leaves[mask[leaves]]
        found = [leaf for leaf, _ in ranked]
        assert len(found) == len(set(found)) == min(width, len(allowed))
        assert set(found) <= set(allowed.tolist())
        assert sorted((score for _, score in ranked), reverse=True) == [score for _, score in ranked]
    assert (evaluator.calls <= trie.length).all()
    again, _, _ = search(trie, target, prompts, widths, live=live, keys=keys, **options)
    assert again == lists
    for i, width in enumerate(widths):
        alone, _, _ = search(trie, target, [prompts[i]], width, live=[live[i]], keys=[keys[i]], **options)
        assert alone == [lists[i]]


@pytest.mark.parametrize("catalog", CATALOGS)
@pytest.mark.parametrize("width", [2, 3, 100])
def test_what_a_draft_that_is_the_target_draws_is_always_accepted(
    monkeypatch: pytest.MonkeyPatch, catalog: str, width: int
) -> None:
    trie, seen = CATALOGS[catalog], []
    drafted, keys = RelaxedVerifier._drafted, RelaxedVerifier._keys

    def drafted_too(self: RelaxedVerifier, *arguments: Any) -> Any:
        result = drafted(self, *arguments)
        seen.append(result[1].copy())
        return result

    def keys_too(self: RelaxedVerifier, kids: Any, log_p: Any, log_q: Any, accepted: Any, draft: Any) -> Any:
        trusted = draft[kids.request]  # after a level with fewer than K survivors' children nothing is looked at
        assert accepted[trusted].tolist() == seen[-1][trusted].tolist()
        seen.append(accepted)
        return keys(self, kids, log_p, log_q, accepted, draft)

    monkeypatch.setattr(RelaxedVerifier, "_drafted", drafted_too)
    monkeypatch.setattr(RelaxedVerifier, "_keys", keys_too)
    target, draft = pair(trie, 0.0)
    _, evaluator, _ = search(
        trie, target, [PROMPT] * 500, 2, verification=Verification("relaxed"), draft=draft, shape=DraftShape(width, 3)
    )
    assert sum(int(accepted.sum()) for accepted in seen) > 1000
    if width != 3:  # as many as wanted, or all there are: one call is enough
        assert evaluator.calls.max() == 1


def test_disagreement_costs_calls_and_drafting_saves_them() -> None:
    trie = ItemTrie.build(random_catalog(np.random.default_rng(0), 400, 4, 6))
    calls = []
    for disagreement in (0.0, 0.3, 1.0):
        target, draft = pair(trie, disagreement, 3.0)
        _, evaluator, stats = search(
            trie, target, [PROMPT] * 200, 5, verification=Verification("relaxed", seed=1), draft=draft,
            shape=DraftShape(20, 3),
        )  # fmt: skip
        calls.append(float(evaluator.calls.mean()))
        assert stats.needed.sum() > 0
    assert calls == sorted(calls)
    assert calls[0] < calls[-1] < 4
    assert stats.rejections > 0


def test_seeds_and_users_draw_anew() -> None:
    trie = ItemTrie.build(random_catalog(np.random.default_rng(0), 300, 3, 8))
    target, draft = pair(trie, 0.3)

    def lists(seed: int) -> list[Nodes]:
        ranked, _, _ = search(
            trie, target, [PROMPT] * 50, 5, verification=Verification("relaxed", seed=seed), draft=draft,
            shape=DraftShape(10, 2),
        )  # fmt: skip
        return [frozenset(leaf for leaf, _ in one) for one in ranked]

    first, second = lists(0), lists(1)
    assert len(set(first)) == 50
    assert len(set(first) & set(second)) < 5  # by chance


@pytest.mark.parametrize("seed", range(5))
def test_a_filter_gives_what_a_rebuilt_catalog_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    catalog = ragged_catalog(rng, 200, 4, 4)
    kept = rng.random(200) < 0.3
    whole, rebuilt = ItemTrie.build(catalog), ItemTrie.build(catalog[kept])
    assert whole.vocabulary.tolist() == rebuilt.vocabulary.tolist()  # the scripted engines see the same columns
    (target, draft), prompts = pair(whole, 0.4), [PROMPT] * 30
    live = [live_mask(whole, np.unique(whole.leaf_of[kept]).tolist())] * len(prompts)
    options: dict[str, Any] = {"draft": draft, "shape": DraftShape(9, 3), "verification": Verification("relaxed")}
    lists = []
    for trie, filters in ((whole, live), (rebuilt, None)):
        found, _, _ = search(trie, target, prompts, 6, live=filters, **options)
        first_items = {leaf: int(trie.item[trie.item_offset[leaf]]) for ranked in found for leaf, _ in ranked}
        rows = trie.item_tokens()
        lists.append([[rows[first_items[leaf]].tolist() for leaf, _ in ranked] for ranked in found])
    assert lists[0] == lists[1]
