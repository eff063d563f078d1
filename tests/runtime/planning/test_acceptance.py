"""What became of drafts: counted against loops over nodes, smoothed, kept in a file, and fed by the real loop."""

from collections import defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np
from hypothesis import given, settings

from acceptance_cases import FULL, Travel, a_round, level_of, observed, rounds, upto
from specbeam.catalog.trie import ItemTrie
from specbeam.runtime.planning.acceptance import (
    GRID,
    Acceptance,
    AcceptanceCounts,
    DepthCounts,
    LevelCounts,
    WidthCounts,
)
from specbeam.runtime.types import Int64

SIX, THIRTY_SIX = range(1, 7), range(7, 43)  # the nodes of depths 1 and 2


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
