"""What became of drafts: counted against loops over nodes, smoothed, kept in a file, and fed by the real loop."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted_search import random_catalog, search
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.planning.acceptance import (
    GRID,
    PRIOR_REQUESTS,
    Acceptance,
    AcceptanceCounts,
    DepthCounts,
    LevelCounts,
    WidthCounts,
)
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.types import DraftShape, DraftTree, Frontier, Hypotheses, Int64, NodeList, Step, Verdict

Nodes = Sequence[int]
WIDEST = 8
FULL = ItemTrie.build(np.stack(np.meshgrid(*[10 * d + np.arange(6) for d in range(3)]), -1).reshape(-1, 3))  # 6 x 6 x 6
SIX, THIRTY_SIX = range(1, 7), range(7, 43)  # the nodes of depths 1 and 2


class Travel(NamedTuple):
    """One request's round: where it stood, what was drafted, and the frontiers it reached, empty where it ended."""

    k: int
    depth: int
    drafted: Sequence[Nodes]  # by level, in the order of their ranks
    reached: Sequence[Nodes]


def a_round(travels: Sequence[Travel], trie: ItemTrie, fewest: int = 1) -> tuple[Frontier, DraftTree, Verdict]:
    """The rounds of several requests as the loop tells of them; the drafted nodes in no order."""
    batch = len(travels)
    k = np.array([travel.k for travel in travels])
    depth = np.array([travel.depth for travel in travels])
    before = Frontier(standing([[0]] * batch), standing([[]] * batch), depth, k)
    now = list[Nodes]([[0]] * batch)
    steps, at = [], depth.copy()
    for number in range(max(len(travel.reached) for travel in travels)):
        ready = np.array([len(travel.reached) > number for travel in travels])
        now = [travel.reached[number] if ready[i] else now[i] for i, travel in enumerate(travels)]
        at = at + ready
        nodes = standing(now).nodes
        moved = ready & (nodes[:, 0] >= 0)
        needed = moved[:, None] & (nodes >= 0) & (trie.child_count[nodes] >= fewest)
        steps.append(Step(moved, at, nodes, needed, needed & False, needed & False))
    after = Frontier(standing(now), standing([[]] * batch), at, k)
    rows = [
        (request, node, level, rank)
        for request, travel in enumerate(travels)
        for level, nodes in enumerate(travel.drafted, 1)
        for rank, node in enumerate(nodes)
    ]
    flat = np.array(rows, np.int64).reshape(-1, 4)
    flat = flat[np.random.default_rng(len(rows)).permutation(len(rows))]
    tree = DraftTree(NodeList(flat[:, 0], flat[:, 1]), flat[:, 2], flat[:, 3], np.zeros(len(rows)), "strict")
    nothing = np.empty(0, np.int64)
    return before, tree, Verdict(after, NodeList(nothing, nothing), tuple(steps))


def standing(nodes: Sequence[Nodes]) -> Hypotheses:
    padded = np.array([[*row, *[-1] * (WIDEST - len(row))] for row in nodes], np.int64)
    scores = np.where(padded >= 0, 0.0, -np.inf)
    return Hypotheses(padded, scores, scores)


def observed(travels: Sequence[Travel], trie: ItemTrie = FULL, times: int = 1) -> Acceptance:
    acceptance = Acceptance(trie)
    for _ in range(times):
        acceptance.observe(*a_round(travels, trie))
    return acceptance


def level_of(acceptance: Acceptance, k: int, start: int, level: int) -> LevelCounts | None:
    counts = {width.k: width for width in acceptance.snapshot().widths}[k]
    return {(entry.start, entry.level): entry for entry in counts.levels}.get((start, level))


def upto(width: int, *, of: int = 1, since: int = 1) -> tuple[int, ...]:
    """`of` for every width of the grid from `since` to `width`."""
    return tuple(of if since <= w <= width else 0 for w in GRID)


def test_a_draft_is_a_trial_for_all_narrower_ones() -> None:
    acceptance = observed([Travel(2, 0, [[5, 2, 1, 3, 4]], [[1, 2]])])
    level = level_of(acceptance, 2, 0, 1)
    assert level is not None
    assert level.trials == upto(5)  # 1, 2, 3, 4: nothing is known of 6
    assert level.complete == upto(5, since=3)  # ranks 1 and 2
    assert level.needed == upto(5, of=2)
    assert level.found == tuple(2 if 3 <= w <= 5 else 1 if w == 2 else 0 for w in GRID)


def test_what_was_not_drafted_is_never_complete() -> None:
    level = level_of(observed([Travel(2, 0, [[5, 2, 1]], [[1, 6]])]), 2, 0, 1)
    assert level is not None
    assert level.complete == upto(0)
    assert level.found == upto(3, since=3)


def test_a_level_that_was_not_reached_is_no_trial_and_one_not_drafted_neither() -> None:
    short = observed([Travel(2, 0, [[1, 2], [7, 8]], [[1, 6]])])
    assert level_of(short, 2, 0, 1) is not None
    assert level_of(short, 2, 0, 2) is None
    bare = observed([Travel(2, 0, [], [[1, 6]])])
    assert bare.snapshot().widths[0].levels == ()
    assert bare.requests(2) == 1


def test_requests_do_not_find_each_other_s_nodes() -> None:
    level = level_of(observed([Travel(2, 0, [[1, 2]], [[3]]), Travel(2, 0, [[3, 4]], [[3]])]), 2, 0, 1)
    assert level is not None
    assert (level.trials[0], level.complete[0], level.found[0]) == (2, 1, 1)


def test_enumerated_levels_say_nothing_of_the_draft_and_all_of_the_search() -> None:
    travels = [Travel(2, 0, [list(SIX)], [[1, 2]]), Travel(2, 0, [[3, 4]], [[3]])]
    acceptance = Acceptance(FULL)
    acceptance.observe(*a_round(travels, FULL), np.array([True, False]))
    level = level_of(acceptance, 2, 0, 1)
    assert level is not None
    assert level.trials == upto(2)
    assert acceptance.requests(2) == 2
    assert acceptance.snapshot().widths[0].depths[1] == DepthCounts(requests=2, idle=0, needed=3, children=18)


def test_who_ends_early_needs_nothing_from_there_on() -> None:
    trie = ItemTrie.build(np.stack(np.meshgrid(*[10 * d + np.arange(3) for d in range(4)]), -1).reshape(-1, 4))
    acceptance = observed([Travel(2, 0, [[1, 2], [4, 5]], [[1, 2], []])], trie)
    depths = acceptance.snapshot().widths[0].depths
    assert [(depth.requests, depth.idle, depth.needed) for depth in depths] == [
        (1, 0, 0),
        (1, 0, 2),
        (1, 1, 0),
        (1, 1, 0),
    ]
    second = level_of(acceptance, 2, 0, 2)
    assert second is not None
    assert second.trials == second.complete == upto(2)
    assert second.needed == upto(0)
    assert level_of(acceptance, 2, 0, 3) is None


@st.composite
def rounds(draw: st.DrawFn) -> tuple[ItemTrie, int, list[list[Travel]]]:
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    trie = ItemTrie.build(random_catalog(rng, int(rng.integers(1, 60)), int(rng.integers(1, 5)), 5))

    def some(depth: int, most: int) -> list[int]:
        nodes = np.arange(trie.level_start[depth], trie.level_start[depth + 1])
        return rng.permutation(nodes)[: int(rng.integers(0, most + 1))].tolist()

    def travel() -> Travel:
        depth = int(rng.integers(0, trie.length))
        drafted = [some(d, 40) for d in range(depth + 1, min(trie.length, depth + int(rng.integers(1, 4))))]
        reached: list[Nodes] = []
        for d in range(depth + 1, depth + 1 + int(rng.integers(1, trie.length - depth + 1))):
            reached.append([] if d == trie.length else some(d, WIDEST))
            if not reached[-1]:
                break
        return Travel(int(rng.integers(1, 4)), depth, drafted, reached)

    many = [[travel() for _ in range(draw(st.integers(1, 5)))] for _ in range(draw(st.integers(1, 3)))]
    return trie, draw(st.sampled_from([1, 2])), many


def by_hand(trie: ItemTrie, fewest: int, travels: Sequence[Travel]) -> AcceptanceCounts:
    """The same counts by loops over requests, levels, widths and nodes."""
    levels = defaultdict[tuple[int, int, int], Int64](lambda: np.zeros((4, len(GRID)), np.int64))
    depths = defaultdict[int, Int64](lambda: np.zeros((trie.length, 4), np.int64))
    for k, start, drafted, reached in travels:
        depths[k][0, 0] += start == 0
        for level, nodes in enumerate(reached, 1):
            if start + level == trie.length:
                break
            needed = [node for node in nodes if trie.child_count[node] >= fewest]
            kids = [c for node in nodes for c in range(len(trie.parent)) if trie.parent[c] == node]
            depths[k][start + level] += 1, not needed, len(needed), sum(trie.child_count[c] >= fewest for c in kids)
            for g, width in enumerate(GRID):
                if level <= len(drafted) and len(drafted[level - 1]) >= width:
                    found = len(set(needed) & set(drafted[level - 1][:width]))
                    levels[k, start, level][:, g] += 1, found == len(needed), len(needed), found
        if not reached[-1]:
            for depth in range(start + len(reached) + 1, trie.length):
                depths[k][depth] += 1, 1, 0, 0
    return AcceptanceCounts(
        grid=GRID,
        widths=tuple(
            WidthCounts(
                k=k,
                depths=tuple(DepthCounts(**dict(zip(DepthCounts.__struct_fields__, row, strict=True)))
                             for row in depths[k].tolist()),
                levels=tuple(
                    LevelCounts(start=s, level=j, **dict(zip(("trials", "complete", "needed", "found"),
                                                             map(tuple, levels[k, s, j].tolist()), strict=True)))
                    for q, s, j in sorted(levels) if q == k and levels[q, s, j][0].any()
                ),
            )
            for k in sorted(depths)
        ),
    )  # fmt: skip


@given(rounds())
@settings(max_examples=150, deadline=None)
def test_counts_are_those_of_loops_over_nodes(case: tuple[ItemTrie, int, list[list[Travel]]]) -> None:
    trie, fewest, many = case
    whole = Acceptance(trie, "full" if fewest == 1 else "constrained")
    merged = Acceptance(trie)
    for travels in many:
        whole.observe(*a_round(travels, trie, fewest))
        part = Acceptance(trie, "full" if fewest == 1 else "constrained")
        part.observe(*a_round(travels, trie, fewest))
        merged.merge(part)
    expected = by_hand(trie, fewest, [travel for travels in many for travel in travels])
    assert whole.snapshot() == expected
    assert merged.snapshot() == expected
    known = msgspec.json.decode(msgspec.json.encode(expected), type=AcceptanceCounts)
    assert Acceptance.from_snapshot(known, trie).snapshot() == expected


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
