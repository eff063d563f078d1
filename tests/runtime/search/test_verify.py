"""Verification on scripted log-probabilities: no engine, no cache."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted_search import random_catalog
from specbeam.catalog.trie import ItemTrie
from specbeam.runtime.drafting.drafter import empty_tree
from specbeam.runtime.search.nodes import EvaluatedNodes
from specbeam.runtime.search.scoring import Scoring
from specbeam.runtime.search.trie_view import TrieView
from specbeam.runtime.search.verify import StrictVerifier
from specbeam.runtime.session import beginning
from specbeam.runtime.stats import DecodeStats
from specbeam.runtime.types import Frontier, NodeList, Verdict

# 0 -> 1, 2, 3; 1 -> 4, 5; 2 -> 6; 3 -> 7, 8, 9; leaves are at depth 3, one below each of 4 to 9
TRIE = ItemTrie.build(np.array([[1, 5, 8], [1, 6, 8], [2, 5, 8], [3, 5, 8], [3, 6, 8], [3, 7, 8]]))
Known = Sequence[tuple[int, int]]


def scores_of(trie: ItemTrie, seed: int = 0) -> np.ndarray:
    """[requests, nodes] a log-probability for every node of every request; few values, so that ties happen."""
    return -np.random.default_rng(seed).integers(1, 6, (8, len(trie.parent))).astype(np.float32)


def evaluated(trie: ItemTrie, known: Known, scores: np.ndarray) -> EvaluatedNodes:
    """Nodes as an engine that gives every child its score would have entered them."""
    nodes = EvaluatedNodes(TrieView(trie), Scoring())
    array = np.array(sorted(known), np.int64).reshape(-1, 2)
    array = array[trie.child_count[array[:, 1]] > 0]
    entered = NodeList(array[:, 0], array[:, 1])
    nodes.add(entered, np.arange(len(entered)))
    rows = np.zeros((len(entered), len(trie.vocabulary)), np.float32)
    for row, (request, node) in zip(rows, array.tolist(), strict=True):
        first, count = int(trie.first_child[node]), int(trie.child_count[node])
        row[trie.column[first : first + count]] = scores[request, first : first + count]
    nodes.add_scores(entered, np.arange(len(entered)), rows)
    return nodes


def start(batch: int, width: int) -> Frontier:
    return beginning(np.full(batch, width), np.zeros(batch))


def verify_strict(frontier: Frontier, known: EvaluatedNodes, trie: ItemTrie) -> Verdict:
    return StrictVerifier("strict", TrieView(trie)).verify(frontier, known, empty_tree("strict"))


def counted(verdict: Verdict, length: int = 3) -> DecodeStats:
    stats = DecodeStats(length)
    stats.count(verdict.steps)
    return stats


def lacking(verdict: Verdict) -> list[tuple[int, int]]:
    return list(zip(verdict.missing.request.tolist(), verdict.missing.node.tolist(), strict=True))


def test_nothing_evaluated_is_no_step() -> None:
    frontier = start(2, 3)
    verdict = verify_strict(frontier, EvaluatedNodes(TrieView(TRIE), Scoring()), TRIE)
    assert verdict.frontier.running.nodes.tolist() == frontier.running.nodes.tolist()
    assert verdict.frontier.depth.tolist() == [0, 0]
    assert lacking(verdict) == [(0, 0), (1, 0)]
    stats = counted(verdict)
    assert stats.needed.tolist() == stats.found.tolist() == stats.levels.tolist() == [0, 0, 0]


def test_the_root_alone_is_one_step() -> None:
    scores = np.zeros((1, 16), np.float32)
    scores[0, 1:4] = [-2, -1, -3]
    verdict = verify_strict(start(1, 2), evaluated(TRIE, [(0, 0)], scores), TRIE)
    assert verdict.frontier.running.nodes.tolist() == [[2, 1]]
    assert verdict.frontier.running.scores.tolist() == [[-1, -2]]
    assert verdict.frontier.depth.tolist() == [1]
    assert lacking(verdict) == [(0, 2), (0, 1)]
    assert counted(verdict).needed.tolist() == [0, 2, 0]
    assert counted(verdict).found.tolist() == [0, 0, 0]
    assert counted(verdict).levels.tolist() == [0, 1, 0]
    assert counted(verdict).levels_found.tolist() == [0, 0, 0]


def test_one_missing_node_holds_the_frontier_and_what_is_beyond_stays_known() -> None:
    scores = np.zeros((1, 16), np.float32)
    scores[0, 1:10] = [-2, -1, -3, -1, -2, -1, -1, -1, -1]
    # node 2 was drafted with its child, node 1 was not
    known = [(0, 0), (0, 2), (0, 3), (0, 6)]
    held = verify_strict(start(1, 2), evaluated(TRIE, known, scores), TRIE)
    assert (held.frontier.running.nodes.tolist(), held.frontier.depth.tolist()) == ([[2, 1]], [1])
    assert lacking(held) == [(0, 1)]
    assert (counted(held).needed.tolist(), counted(held).found.tolist()) == ([0, 2, 0], [0, 1, 0])
    assert (counted(held).levels.tolist(), counted(held).levels_found.tolist()) == ([0, 1, 0], [0, 0, 0])
    # once node 1 is evaluated, depth 2 needs nodes 6 (known) and 4 (not)
    on = verify_strict(held.frontier, evaluated(TRIE, [*known, (0, 1)], scores), TRIE)
    assert (on.frontier.running.nodes.tolist(), on.frontier.depth.tolist()) == ([[6, 4]], [2])
    assert lacking(on) == [(0, 4)]
    assert (counted(on).needed.tolist(), counted(on).found.tolist()) == ([0, 0, 2], [0, 0, 1])
    done = verify_strict(on.frontier, evaluated(TRIE, [*known, (0, 1), (0, 4)], scores), TRIE)
    assert TRIE.depth[done.frontier.running.nodes].tolist() == [[3, 3]]
    assert (done.frontier.depth.tolist(), lacking(done)) == ([3], [])
    assert counted(done).needed.tolist() == [0, 0, 0]  # leaves need nothing
    again = verify_strict(done.frontier, evaluated(TRIE, known, scores), TRIE)
    assert (again.frontier.running.nodes.tolist(), lacking(again)) == (done.frontier.running.nodes.tolist(), [])


def test_everything_evaluated_is_all_steps_at_once() -> None:
    scores = scores_of(TRIE)
    known = [(0, node) for node in range(10)]
    verdict = verify_strict(start(1, 4), evaluated(TRIE, known, scores), TRIE)
    assert verdict.frontier.depth.tolist() == [3]
    assert (counted(verdict).needed.tolist(), counted(verdict).found.tolist()) == ([0, 3, 4], [0, 3, 4])
    assert (counted(verdict).levels.tolist(), counted(verdict).levels_found.tolist()) == ([0, 1, 1], [0, 1, 1])


def test_requests_stand_at_different_depths() -> None:
    scores = scores_of(TRIE, 1)
    whole, root = [(0, node) for node in range(10)], [(2, 0)]
    frontier = start(3, 6)
    verdict = verify_strict(frontier, evaluated(TRIE, whole + root, scores), TRIE)
    assert verdict.frontier.depth.tolist() == [3, 0, 1]
    assert verdict.frontier.running.nodes[1].tolist() == frontier.running.nodes[1].tolist()
    assert sorted(verdict.frontier.running.nodes[2, :3].tolist()) == [1, 2, 3]
    assert verdict.frontier.running.nodes[2, 3:].tolist() == [-1, -1, -1]
    assert np.isneginf(verdict.frontier.running.scores[2, 3:]).all()
    assert sorted(lacking(verdict)) == [(1, 0), (2, 1), (2, 2), (2, 3)]
    assert counted(verdict).needed.tolist() == [0, 3 + 3, 6]
    assert counted(verdict).found.tolist() == [0, 3, 6]
    assert counted(verdict).levels.tolist() == [0, 2, 1]
    assert counted(verdict).levels_found.tolist() == [0, 1, 1]
    # the request that is done stays as it is while the others go on
    more = [(1, node) for node in range(10)] + [(2, 1), (2, 2), (2, 3)]
    later = verify_strict(verdict.frontier, evaluated(TRIE, whole + root + more, scores), TRIE)
    assert later.frontier.depth.tolist() == [3, 3, 2]
    assert later.frontier.running.nodes[0].tolist() == verdict.frontier.running.nodes[0].tolist()
    assert counted(later).needed.tolist() == [0, 3, 6 + 6]


@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 4),
    items=st.integers(1, 40),
    width=st.integers(1, 12),
    batch=st.integers(1, 4),
    share=st.sampled_from([0.3, 0.8, 0.95, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_against_one_step_at_a_time(seed: int, length: int, items: int, width: int, batch: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    trie = ItemTrie.build(random_catalog(rng, items, length, 3))
    scores, inner = scores_of(trie, seed), int(trie.level_start[length])
    known: set[tuple[int, int]] = set()
    for request, node in ((r, n) for r in range(batch) for n in range(inner)):  # parents first
        if (not node or (request, int(trie.parent[node])) in known) and rng.random() < share:
            known.add((request, node))
    verdict = verify_strict(start(batch, width), evaluated(trie, sorted(known), scores), trie)
    needed, found, levels, levels_found = np.zeros((4, length), int)
    missing = []
    for request in range(batch):
        beams, depth = [(0, 0.0)], 0
        while depth < length and all((request, node) in known for node, _ in beams):
            grown = []
            for node, score in beams:
                first = int(trie.first_child[node])
                for child in range(first, first + int(trie.child_count[node])):
                    grown.append((child, score + float(scores[request, child])))
            beams, depth = sorted(grown, key=lambda beam: -beam[1])[:width], depth + 1
            if depth < length:
                hits = sum((request, node) in known for node, _ in beams)
                needed[depth] += len(beams)
                found[depth] += hits
                levels[depth] += 1
                levels_found[depth] += hits == len(beams)
        if depth < length:
            missing += [(request, node) for node, _ in beams if (request, node) not in known]
        assert verdict.frontier.depth[request] == depth
        frontier = verdict.frontier
        hypotheses = frontier.running if depth < length else frontier.finished
        nodes = hypotheses.nodes[request]
        assert nodes[nodes >= 0].tolist() == [node for node, _ in beams]
        assert hypotheses.scores[request][nodes >= 0].tolist() == [score for _, score in beams]
        assert frontier.active[request] == (depth < length)
    assert lacking(verdict) == missing
    assert counted(verdict, length).needed.tolist() == needed.tolist()
    assert counted(verdict, length).found.tolist() == found.tolist()
    assert counted(verdict, length).levels.tolist() == levels.tolist()
    assert counted(verdict, length).levels_found.tolist() == levels_found.tolist()
