"""What an engine knows of a batch: finding nodes, completing ancestors, entering and forgetting them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted_search import random_catalog
from specbeam.catalog.trie import ItemTrie
from specbeam.runtime.search.nodes import EvaluatedNodes
from specbeam.runtime.search.scoring import Scoring
from specbeam.runtime.search.trie_view import TrieView
from specbeam.runtime.types import Beams, NodeList

# 0 -> 1, 2, 3; 1 -> 4, 5; 2 -> 6; 3 -> 7, 8, 9
TRIE = ItemTrie.build(np.array([[1, 5], [1, 6], [2, 5], [3, 5], [3, 6], [3, 7]]))


def listed(*pairs: tuple[int, int]) -> NodeList:
    array = np.array(pairs, np.int64).reshape(-1, 2)
    return NodeList(array[:, 0], array[:, 1])


def pairs(nodes: NodeList) -> list[tuple[int, int]]:
    return list(zip(nodes.request.tolist(), nodes.node.tolist(), strict=True))


def found(known: EvaluatedNodes, *wanted: tuple[int, int]) -> list[int]:
    nodes = listed(*wanted)
    return known.find(nodes.request, nodes.node).tolist()


def enter(known: EvaluatedNodes, nodes: NodeList, slots: list[int]) -> np.ndarray:
    """Enter nodes with scores that tell them apart: -(100 request + 10 node + column)."""
    paths = known.add(nodes, np.array(slots, np.int64))
    scores = -(100 * nodes.request + 10 * nodes.node)[:, None] - np.arange(len(TRIE.vocabulary))
    inner = TRIE.child_count[nodes.node] > 0
    parents = NodeList(nodes.request[inner], nodes.node[inner])
    known.add_scores(parents, np.flatnonzero(inner), scores.astype(np.float32))
    return paths


def test_nothing_is_found_in_nothing() -> None:
    known = EvaluatedNodes(TrieView(TRIE), Scoring())
    assert len(known) == 0
    assert found(known, (0, 0), (3, 5), (0, -1)) == [-1, -1, -1]
    assert known.find(np.arange(2)[:, None], np.zeros((2, 3), np.int64)).tolist() == [[-1] * 3] * 2


def test_find_tells_requests_and_nodes_apart() -> None:
    known = EvaluatedNodes(TrieView(TRIE), Scoring())
    enter(known, listed((0, 0), (0, 2), (2, 0), (2, 1)), [9, 3, 9, 3])
    assert len(known) == 4
    assert found(known, (0, 0), (0, 2), (2, 0), (2, 1)) == [0, 1, 2, 3]
    assert found(known, (0, 1), (1, 0), (1, 2), (2, 2), (3, 0)) == [-1] * 5
    # -1 is no node, although (2, -1) is where (1, last) would be
    enter(known, listed((1, 0), (1, 3), (1, 9)), [9, 4, 5])
    assert found(known, (1, 9), (2, -1), (0, -1)) == [6, -1, -1]


def test_with_ancestors_completes_and_drops_what_is_known() -> None:
    known = EvaluatedNodes(TrieView(TRIE), Scoring())
    wanted = listed((1, 8), (0, 4), (0, 4), (1, 7), (1, 3))
    assert pairs(known.with_ancestors(wanted)) == [(0, 0), (0, 1), (0, 4), (1, 0), (1, 3), (1, 7), (1, 8)]
    enter(known, listed((0, 0), (0, 1), (1, 0)), [0, 5, 0])
    assert pairs(known.with_ancestors(wanted)) == [(0, 4), (1, 3), (1, 7), (1, 8)]
    assert pairs(known.with_ancestors(listed((0, 1), (0, 0)))) == []
    assert pairs(known.with_ancestors(listed())) == []


def test_paths_are_the_slots_of_ancestors() -> None:
    known = EvaluatedNodes(TrieView(TRIE), Scoring())
    first = enter(known, listed((0, 0), (0, 3), (1, 0), (1, 1), (1, 4)), [2, 7, 1, 7, 8])
    assert first.tolist() == [[-1, -1], [7, -1], [-1, -1], [7, -1], [7, 8]]
    second = enter(known, listed((0, 1), (0, 5), (0, 9), (1, 5)), [20, 21, 22, 20])  # on entered parents, and new ones
    assert second.tolist() == [[20, -1], [20, 21], [7, 22], [7, 20]]


def test_children_and_their_scores() -> None:
    known = EvaluatedNodes(TrieView(TRIE), Scoring())
    enter(known, listed((0, 0), (1, 0), (1, 1)), [2, 1, 7])
    enter(known, listed((0, 3)), [5])
    nodes = listed((1, 1), (0, 3), (0, 0))
    scores = np.array([-1000.0, -2000.0, -3000.0])
    which, (request, child, score, key) = known.children(Beams(nodes.request, nodes.node, scores, scores))
    assert request.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert key.tolist() == score.tolist()
    assert which.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert child.tolist() == [4, 5, 7, 8, 9, 1, 2, 3]
    column = TRIE.column[child]
    own = np.array([110, 110, 30, 30, 30, 0, 0, 0])
    assert score.tolist() == (np.array([-1000.0, -2000.0, -3000.0])[which] - own - column).tolist()


def test_forget_keeps_the_root_and_what_follows_is_entered_anew() -> None:
    known = EvaluatedNodes(TrieView(TRIE), Scoring())
    enter(known, listed((0, 0), (0, 1), (1, 0), (1, 3)), [2, 7, 2, 7])
    known.forget()
    assert len(known) == 2
    assert found(known, (0, 0), (0, 1), (1, 0), (1, 3)) == [0, -1, 2, -1]
    assert pairs(known.with_ancestors(listed((1, 7)))) == [(1, 3), (1, 7)]
    assert enter(known, listed((1, 3), (1, 7)), [30, 31]).tolist() == [[30, -1], [30, 31]]
    which, (_, child, score, _) = known.children(Beams(np.array([1]), np.array([3]), np.zeros(1), np.zeros(1)))
    assert child.tolist() == [7, 8, 9]
    np.testing.assert_array_equal(score, -(130.0 + TRIE.column[child]))
    assert which.tolist() == [0, 0, 0]


@given(seed=st.integers(0, 10**6), rounds=st.integers(1, 4), batch=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_against_a_dictionary(seed: int, rounds: int, batch: int) -> None:
    rng = np.random.default_rng(seed)
    trie = ItemTrie.build(random_catalog(rng, int(rng.integers(1, 30)), int(rng.integers(1, 5)), 3))
    known, slot_of = EvaluatedNodes(TrieView(trie), Scoring()), dict[tuple[int, int], int]()

    def ancestors(request: int, node: int) -> list[tuple[int, int]]:
        return [] if node < 0 else [*ancestors(request, int(trie.parent[node])), (request, node)]

    for _ in range(rounds):
        count = int(rng.integers(0, 8))
        wanted = NodeList(rng.integers(0, batch, count), rng.integers(0, len(trie.parent), count))
        closed = {pair for request, node in pairs(wanted) for pair in ancestors(request, node)}
        new = known.with_ancestors(wanted)
        assert pairs(new) == sorted(closed - set(slot_of))
        slots = rng.permutation(1000)[: len(new)]
        paths = known.add(new, slots)
        inner = trie.child_count[new.node] > 0
        parents, rows = NodeList(new.request[inner], new.node[inner]), np.zeros(int(inner.sum()), np.int64)
        known.add_scores(parents, rows, np.zeros((1, len(trie.vocabulary)), np.float32))
        slot_of.update(zip(pairs(new), slots.tolist(), strict=True))
        for (request, node), path in zip(pairs(new), paths.tolist(), strict=True):
            expected = [slot_of[pair] for pair in ancestors(request, node)[1:]]
            assert path == expected + [-1] * (trie.length - len(expected))
    everything = np.arange(len(trie.parent))
    for request in range(batch):
        here = known.find(np.full(len(everything), request), everything) >= 0
        assert here.tolist() == [(request, node) in slot_of for node in everything.tolist()]


def test_a_missing_parent_is_not_taken_for_another_request_s_node() -> None:
    known = EvaluatedNodes(TrieView(TRIE), Scoring())
    enter(known, listed((0, 0), (0, 3), (0, 9)), [0, 1, 2])
    assert pairs(known.with_ancestors(listed((1, 1)))) == [(1, 0), (1, 1)]
