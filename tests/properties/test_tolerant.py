"""Tolerant verification: strict at slack 0, else by the naive book; nobody stands in for one more than slack better."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted_search import live_mask, naive_beam_search, ragged_catalog, random_catalog, scored_children, search
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.drafting.drafter import empty_tree
from specbeam.runtime.options import Verification
from specbeam.runtime.search.nodes import EvaluatedNodes
from specbeam.runtime.search.scoring import Scoring
from specbeam.runtime.search.trie_view import TrieView
from specbeam.runtime.search.verify import TolerantVerifier
from specbeam.runtime.session import beginning
from specbeam.runtime.types import DraftShape, NodeList, Round, Verdict

Beam = tuple[int, float]  # (node, score)


def pair(trie: ItemTrie, seed: int, disagreement: float) -> tuple[ScriptedEngine, ScriptedEngine]:
    columns = len(trie.vocabulary)
    return ScriptedEngine(columns, seed=seed), ScriptedEngine(columns, seed=seed, disagreement=disagreement)


class Naive:
    """One request's tolerant steps from plain sequences; every assignment of stand-ins is tried."""

    def __init__(
        self, trie: ItemTrie, target: ScriptedEngine, prompt: np.ndarray, width: int, slack: float, scoring: str,
        live: np.ndarray | None,
    ) -> None:  # fmt: skip
        self.trie, self.width, self.slack = trie, width, slack
        self._arguments = (trie, target, prompt), (scoring, live)
        self.known: set[int] = set()
        self.stand_ins = 0

    def advance(self, running: list[Beam], finished: list[Beam]) -> tuple[list[Beam], list[Beam]]:
        """As far as what is known allows."""
        while running and not any(self.lacks(node) for node, _ in running):
            kids = sorted((kid for beam in running for kid in self.children(beam)), key=lambda kid: -kid[1])
            finished = sorted(
                finished + [kid for kid in kids[: self.width] if not self.trie.child_count[kid[0]]],
                key=lambda beam: -beam[1],
            )[: self.width]
            running = self.chosen([kid for kid in kids if self.trie.child_count[kid[0]]])
            if running and len(finished) == self.width and running[0][1] <= finished[-1][1]:
                running = []
        return running, finished

    def chosen(self, kids: list[Beam]) -> list[Beam]:
        """The best kids; evaluated outsiders for missing ones, where all missing ones find one near enough."""
        best, others = kids[: self.width], kids[self.width :]
        missing = [kid for kid in best if self.lacks(kid[0])]
        reserve = [kid for kid in others if not self.lacks(kid[0])][: len(missing)]
        near = any(
            all(lost[1] - other[1] <= self.slack for lost, other in zip(missing, way, strict=True))
            for way in permutations(reserve, len(missing))
        )
        if not missing or not near:
            return best
        self.stand_ins += len(missing)
        return sorted([kid for kid in best if kid not in missing] + reserve, key=lambda kid: -kid[1])

    def children(self, beam: Beam) -> list[Beam]:
        (trie, target, prompt), (scoring, live) = self._arguments
        node, tokens = beam[0], []
        while node:
            tokens.append(int(trie.vocabulary[trie.column[node]]))
            node = int(trie.parent[node])
        kids = scored_children(trie, target, prompt, beam[0], tuple(tokens[::-1]), scoring, live)
        return [(kid, beam[1] + logprob) for kid, _, logprob in kids]

    def lacks(self, node: int) -> bool:
        (trie, *_), (scoring, live) = self._arguments
        first, count = int(trie.first_child[node]), int(trie.child_count[node])
        choices = count if live is None else int(live[first : first + count].sum())
        return node not in self.known and count > 0 and (choices > 1 or scoring == "full")


@given(
    seed=st.integers(0, 10**6),
    ragged=st.booleans(),
    length=st.integers(2, 5),
    codes=st.integers(2, 6),
    items=st.integers(10, 120),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    shape=st.builds(DraftShape, st.integers(1, 15), st.integers(1, 4)),
    disagreement=st.sampled_from([0.2, 0.5, 1.0]),
    slack=st.sampled_from([0.05, 0.5, 2.0, 1e9]),
    scoring=st.sampled_from(["full", "constrained"]),
    filtered=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_every_round_is_the_naive_books(
    seed: int, ragged: bool, length: int, codes: int, items: int, widths: list[int], shape: DraftShape,
    disagreement: float, slack: float, scoring: Any, filtered: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    trie = ItemTrie.build((ragged_catalog if ragged else random_catalog)(rng, items, length, codes))
    target, draft = pair(trie, seed, disagreement)
    prompts = [rng.integers(0, 99, rng.integers(1, 8)) for _ in widths]
    leaves = np.flatnonzero(trie.child_count == 0)
    live = [live_mask(trie, leaves[rng.random(len(leaves)) < 0.6].tolist()) if filtered else None for _ in widths]
    rounds: list[Round] = []
    lists, evaluator, stats = search(
        trie, target, prompts, widths, draft=draft, shape=shape, live=live, rounds=rounds,
        verification=Verification("tolerant", slack=slack, scoring=scoring),
    )  # fmt: skip
    stand_ins = 0
    for i, (prompt, width) in enumerate(zip(prompts, widths, strict=True)):
        allowed = leaves if live[i] is None else leaves[np.asarray(live[i])[leaves]]
        width = min(width, len(allowed))
        naive = Naive(trie, target, prompt, width, slack, scoring, live[i])
        running, finished = naive.advance([(0, 0.0)] if width else [], [])
        for one in rounds:
            before = one.before.running.nodes[i]
            assert before[before >= 0].tolist() == [node for node, _ in running]
            naive.known |= set(one.evaluated.node[one.evaluated.request == i].tolist())
            running, finished = naive.advance(running, finished)
        assert not running
        assert [leaf for leaf, _ in lists[i]] == [leaf for leaf, _ in finished]
        np.testing.assert_allclose([s for _, s in lists[i]], [s for _, s in finished], atol=1e-4)
        assert len({leaf for leaf, _ in lists[i]}) == len(lists[i]) == width
        assert {leaf for leaf, _ in lists[i]} <= set(allowed.tolist())
        stand_ins += naive.stand_ins
        # one request alone gets the same
        alone, _, _ = search(
            trie, target, [prompt], width, draft=draft, shape=shape, live=[live[i]],
            verification=Verification("tolerant", slack=slack, scoring=scoring),
        )  # fmt: skip
        assert alone == [lists[i]]
    assert (evaluator.calls <= trie.length).all()  # every round steps once at least, as without slack
    assert stats.stand_ins == stand_ins


@given(
    seed=st.integers(0, 10**6),
    ragged=st.booleans(),
    widths=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    shape=st.one_of(st.none(), st.builds(DraftShape, st.integers(1, 25), st.integers(1, 4))),
    scoring=st.sampled_from(["full", "constrained"]),
)
@settings(max_examples=60, deadline=None)
def test_no_slack_is_strict(seed: int, ragged: bool, widths: list[int], shape: DraftShape | None, scoring: Any) -> None:
    rng = np.random.default_rng(seed)
    trie = ItemTrie.build((ragged_catalog if ragged else random_catalog)(rng, 80, 4, 4))
    target, draft = pair(trie, seed, 0.5)
    prompts = [rng.integers(0, 99, 5) for _ in widths]
    results = []
    for verification in (Verification("tolerant", slack=0.0, scoring=scoring), Verification(scoring=scoring)):
        lists, evaluator, stats = search(
            trie, target, prompts, widths, draft=None if shape is None else draft, shape=shape,
            verification=verification,
        )  # fmt: skip
        results.append((lists, evaluator.calls.tolist(), stats.rejections, stats.stand_ins))
    assert results[0] == results[1]
    assert results[0][3] == 0
    if shape is None:  # nobody to stand in: strict whatever the slack
        lists, _, _ = search(trie, target, prompts, widths, verification=Verification("tolerant", slack=1e9))
        assert [[leaf for leaf, _ in ranked] for ranked in lists] == [
            [leaf for leaf, _ in naive_beam_search(trie, target, prompt, width)]
            for prompt, width in zip(prompts, widths, strict=True)
        ]


def test_slack_buys_calls_for_score() -> None:
    trie = ItemTrie.build(random_catalog(np.random.default_rng(0), 600, 4, 7))
    target, draft = pair(trie, 1, 0.4)
    prompts = [np.random.default_rng(i).integers(0, 99, 5) for i in range(200)]
    calls, scores, stand_ins = [], [], []
    for slack in (0.0, 0.3, 1.0, 1e9):
        lists, evaluator, stats = search(
            trie, target, prompts, 8, draft=draft, shape=DraftShape(16, 3),
            verification=Verification("tolerant", slack=slack),
        )  # fmt: skip
        calls.append(float(evaluator.calls.mean()))
        scores.append(float(np.mean([score for ranked in lists for _, score in ranked])))
        stand_ins.append(stats.stand_ins)
    # per request neither is certain: a stand-in leads to a frontier of its own
    assert calls == sorted(calls, reverse=True)
    assert calls[-1] < 0.7 * calls[0]
    assert scores == sorted(scores, reverse=True)
    assert stand_ins[0] == 0 < stand_ins[1] < stand_ins[2]


# 0 -> 1..5, each with two leaves
FLAT = ItemTrie.build(np.array([[first, last] for first in range(1, 6) for last in (8, 9)]))


def verified(scores: list[float], known: list[int], width: int, slack: float) -> Verdict:
    """One step from the root, whose children 1 to 5 have these scores; `known` of them are evaluated."""
    view = TrieView(FLAT)
    nodes = EvaluatedNodes(view, Scoring())
    entered = NodeList(np.zeros(1 + len(known), np.int64), np.array([0, *known]))
    nodes.add(entered, np.arange(len(entered)))
    rows = np.full((len(entered), len(FLAT.vocabulary)), -1.0, np.float32)
    rows[0, FLAT.column[1:6]] = scores
    nodes.add_scores(entered, np.arange(len(entered)), rows)
    return TolerantVerifier(view, slack).verify(
        beginning(np.array([width]), np.zeros(1)), nodes, empty_tree("tolerant")
    )


@pytest.mark.parametrize(
    ("scores", "known", "slack", "frontier", "stand_ins"),
    [
        ([-1, -2, -3, -4, -5], [1, 3], 1.0, [1, 3], [3]),  # for 2, at the very edge
        ([-1, -2, -3, -4, -5], [1, 3], 0.9, [1, 2], []),
        ([-1, -2, -3, -4, -5], [2, 3], 2.0, [2, 3], [3]),  # for 1: the frontier stays sorted
        ([-1, -2, -3, -4, -5], [3, 4], 2.0, [3, 4], [3, 4]),  # 3 for 1 and 4 for 2
        ([-1, -2, -3, -4, -5], [3, 5], 2.0, [1, 2], []),  # 5 is too far from either: all or none
        ([-1, -2, -3, -4, -5], [3], 9.0, [1, 2], []),  # one for two
        ([-5, -4, -3, -2, -1], [1, 2], 9.0, [2, 1], [2, 1]),
        ([-1, -1, -1, -1, -1], [4, 5], 0.1, [4, 5], [4, 5]),  # among equals the smaller token first
        ([-1, -1, -1, -1, -1], [4, 5], 0.0, [1, 2], []),  # no slack is strict even among equals
    ],
)
def test_who_stands_in_for_whom(
    scores: list[float], known: list[int], slack: float, frontier: list[int], stand_ins: list[int]
) -> None:
    verdict = verified(scores, known, 2, slack)
    first = verdict.steps[0]
    assert first.nodes.tolist() == [frontier]
    assert first.nodes[first.stand_ins].tolist() == stand_ins
    assert len(verdict.steps) == (2 if all(node in known for node in frontier) else 1)
