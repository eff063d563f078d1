"""Counts of drafts as chances, and as they are kept."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acceptance_cases import FULL, Travel, a_round, level_of, observed, rounds, upto
from scripted_search import random_catalog, search
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.planning.acceptance import (
    GRID,
    PRIOR_REQUESTS,
    Acceptance,
    AcceptanceCounts,
)
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.types import DraftShape, DraftTree, Frontier, Verdict


@given(rounds(), st.integers(1, 9), st.lists(st.floats(0, 200), min_size=2, max_size=2))
@settings(max_examples=100, deadline=None)
def test_chances_are_chances_and_grow_with_the_width(
    case: tuple[ItemTrie, int, list[list[Travel]]], k: int, widths: list[float]
) -> None:
    trie, fewest, many = case
    acceptance = Acceptance(trie, "full" if fewest == 1 else "constrained")
    for travels in many:
        acceptance.observe(*a_round(travels, trie, fewest))
    narrow, wide = sorted(widths)
    for s in range(trie.length):
        assert 0 <= acceptance.needed_nodes(k, s) <= trie.level_start[s + 1] - trie.level_start[s]
        for j in range(1, trie.length - s):
            for chance in (acceptance.p_complete, acceptance.share_found):
                assert -1e-12 <= chance(k, s, j, narrow) <= chance(k, s, j, wide) + 1e-12 <= 1 + 2e-12
            assert -1e-12 <= acceptance.need(k, s, j, 3) <= 1
            assert acceptance.p_complete(k, s, j, 10**6) == 1  # all there are
    assert acceptance.enumerated(k, 0) == sum(
        trie.child_count[node] >= fewest for node in trie.children(np.array([0]))[1]
    )


def test_before_anything_is_observed_drafting_is_believed_in() -> None:
    trie = ItemTrie.build(random_catalog(np.random.default_rng(0), 5000, 4, 60))
    acceptance = Acceptance(trie)
    assert acceptance.requests(20) == 0
    assert [acceptance.needed_nodes(20, s) for s in range(4)] == [1, 20, 20, 20]
    assert acceptance.share_found(20, 0, 1, 40) == pytest.approx(1 - 0.25 * 20 / 40)
    assert acceptance.p_complete(20, 0, 1, 40) == pytest.approx((1 - 0.25 * 20 / 40) ** 20**0.5)
    assert acceptance.share_found(20, 1, 2, 8) == pytest.approx(0.75 * 8 / 20)
    assert acceptance.p_complete(20, 1, 2, 16) == 0  # fewer than are needed
    assert acceptance.p_complete(1, 0, 1, 1) == acceptance.share_found(1, 0, 1, 1) == pytest.approx(0.75)
    assert acceptance.enumerated(20, 0) == 60
    assert 20 < acceptance.enumerated(20, 1) <= trie.level_start[3] - trie.level_start[2]
    assert sum(acceptance.need(20, 0, 1, r) for r in range(40)) == pytest.approx(
        20 * acceptance.share_found(20, 0, 1, 40)
    )


def test_the_belief_weighs_twenty_requests_and_then_gives_way() -> None:
    believed = Acceptance(FULL).p_complete(1, 0, 1, 2)
    held, missed = [Travel(1, 0, [[1, 2, 3]], [[1]])], [Travel(1, 0, [[1, 2, 3]], [[6]])]
    assert PRIOR_REQUESTS == 20
    assert observed(missed, times=20).p_complete(1, 0, 1, 2) < believed / 2 + 1e-9
    assert observed(held, times=20).p_complete(1, 0, 1, 2) > (1 + believed) / 2 - 1e-9
    assert observed(missed, times=2000).p_complete(1, 0, 1, 3) < 0.03
    assert observed(held, times=2000).share_found(1, 0, 1, 1) > 0.98
    # Nothing was drafted wider than 3: there the belief still adds to what is known, but does not replace it.
    after = observed(missed, times=2000)
    assert after.p_complete(1, 0, 1, 3) < after.p_complete(1, 0, 1, 4) < Acceptance(FULL).p_complete(1, 0, 1, 4) / 2


def test_a_wide_draft_is_not_believed_worse_than_a_narrow_one() -> None:
    narrow, wide = Travel(1, 0, [[1, 2]], [[1]]), Travel(1, 0, [[2, 3, 4, 5]], [[1]])
    acceptance = observed([narrow], times=500)
    acceptance.merge(observed([wide], times=100))  # all that is known of 3 and 4
    for chance in (acceptance.p_complete, acceptance.share_found):
        assert chance(1, 0, 1, 2) > 0.8
        assert chance(1, 0, 1, 4) == pytest.approx(chance(1, 0, 1, 2))


def test_a_k_that_was_not_seen_is_that_nearest_by_ratio_with_widths_in_proportion() -> None:
    trie = ItemTrie.build(random_catalog(np.random.default_rng(0), 5000, 3, 60))
    first = list(range(1, 61))
    acceptance = observed([Travel(4, 0, [first[:40]], [first[1:3]])], trie, times=300)
    acceptance.merge(observed([Travel(2, 0, [first[:40]], [first[:1]])], trie, times=300))
    acceptance.merge(observed([Travel(16, 0, [first[:40]], [first[30:31]])], trie, times=3))  # too few to speak
    for unseen in (8, 16, 40):
        assert acceptance.requests(unseen) == 300
        ratio = unseen / 4
        for width in (2, 4, 0.5):
            believed = acceptance.p_complete(4, 0, 1, width)
            assert acceptance.p_complete(unseen, 0, 1, width * ratio) == pytest.approx(believed)
        assert acceptance.needed_nodes(unseen, 1) == pytest.approx(min(60, ratio * acceptance.needed_nodes(4, 1)))
        assert acceptance.enumerated(unseen, 0) == 60
    assert acceptance.p_complete(1, 0, 1, 1) == pytest.approx(acceptance.p_complete(2, 0, 1, 2))


def test_more_counts_are_seen_at_once() -> None:
    acceptance = observed([Travel(1, 0, [[1, 2]], [[1]])])
    before = acceptance.p_complete(1, 0, 1, 1)
    acceptance.merge(observed([Travel(1, 0, [[1, 2]], [[2]])], times=50))
    assert acceptance.p_complete(1, 0, 1, 1) < before / 2


def test_counts_of_another_catalog_or_damaged_ones_are_refused() -> None:
    counts = observed([Travel(2, 0, [[1, 2]], [[1, 6]])]).snapshot()
    replace, (width,) = msgspec.structs.replace, counts.widths
    other = ItemTrie.build(random_catalog(np.random.default_rng(0), 9, 4, 3))
    with pytest.raises(SpecBeamError, match="not of identifiers of 4 tokens"):
        Acceptance.from_snapshot(counts, other)
    with pytest.raises(ValueError, match="3 tokens, expected 4"):
        Acceptance(other).merge(Acceptance(FULL))
    with pytest.raises(SpecBeamError, match="draft widths"):
        Acceptance.from_snapshot(replace(counts, grid=GRID[:-1]), FULL)
    (level,) = width.levels
    for damaged in (
        replace(level, start=2), replace(level, level=0), replace(level, trials=level.trials[:-1]),
        replace(level, complete=tuple(n + 1 for n in level.trials)), replace(level, found=(-1,) * len(GRID)),
    ):  # fmt: skip
        with pytest.raises(SpecBeamError, match="damaged"):
            Acceptance.from_snapshot(replace(counts, widths=(replace(width, levels=(damaged,)),)), FULL)
    with pytest.raises(SpecBeamError, match="damaged"):
        Acceptance.from_snapshot(replace(counts, widths=(replace(width, k=0),)), FULL)
    with pytest.raises(msgspec.ValidationError, match="unknown"):
        msgspec.json.decode(b'{"grid": [], "widths": [], "unknown": 1}', type=AcceptanceCounts)


class Watching(FixedPlanning):
    """Drafts by hand and counts what becomes of it."""

    def __init__(self, shape: DraftShape, acceptance: Acceptance) -> None:
        super().__init__(shape)
        self.acceptance = acceptance

    def observe(self, before: Frontier, tree: DraftTree, verdict: Verdict) -> None:
        self.acceptance.observe(before, tree, verdict)


def test_the_loop_s_rounds_are_counted() -> None:
    rng = np.random.default_rng(5)
    trie = ItemTrie.build(random_catalog(rng, 400, 4, 8))
    target = ScriptedEngine(len(trie.vocabulary), seed=1)
    prompts = [rng.integers(0, 99, 6) for _ in range(30)]
    shares = []
    for disagreement in (0.0, 0.3):
        draft = ScriptedEngine(len(trie.vocabulary), seed=1, disagreement=disagreement)
        watching = Watching(DraftShape(10, 3), Acceptance(trie))
        _, _, stats = search(trie, target, prompts, 10, draft=draft, shape=DraftShape(10, 3), planning=watching)
        (width,) = watching.acceptance.snapshot().widths
        assert [depth.requests for depth in width.depths] == [30] * 4
        assert [depth.needed for depth in width.depths[1:]] == stats.needed[1:].tolist()
        shares.append(watching.acceptance.share_found(10, 0, 2, 8))
        if not disagreement:  # the draft's ten are the target's ten
            level = level_of(watching.acceptance, 10, 0, 3)
            assert level is not None
            assert level.trials == upto(8, of=30)
            assert level.found[GRID.index(8)] == 8 * 30
            assert level.complete == upto(0)  # eight are not ten
    assert shares[1] < shares[0]
