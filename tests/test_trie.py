"""The flat item trie against a trie of dictionaries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specrec.catalog import ItemTrie
from specrec.catalog.errors import CatalogError


@st.composite
def identifier_arrays(draw):
    """Token ids [I, L] with few distinct tokens, so that prefixes are shared and rows repeat."""
    length = draw(st.integers(1, 5))
    width = draw(st.integers(1, 6))
    rows = draw(st.lists(st.lists(st.integers(0, width), min_size=length, max_size=length), min_size=1, max_size=40))
    scale, shift = draw(st.sampled_from([(1, 0), (7, 3), (1000, 128_000)]))
    return np.array(rows, np.int64) * scale + shift


def naive(identifiers):
    """Prefix -> sorted next tokens, and identifier -> items in catalog order."""
    following, items = {}, {}
    for item, row in enumerate(identifiers.tolist()):
        for depth in range(len(row)):
            following.setdefault(tuple(row[:depth]), set()).add(row[depth])
        items.setdefault(tuple(row), []).append(item)
    return {prefix: sorted(tokens) for prefix, tokens in following.items()}, items


def prefixes(trie):
    """Every node's prefix, through `parent`."""
    paths = [()]
    for node in range(1, len(trie.parent)):
        paths.append((*paths[trie.parent[node]], int(trie.tokens(np.array(node)))))
    return paths


@settings(deadline=None)
@given(identifier_arrays())
def test_it_holds_the_same_prefixes_as_a_naive_trie(identifiers):
    trie = ItemTrie.build(identifiers)
    following, items = naive(identifiers)
    paths = prefixes(trie)
    assert len(set(paths)) == len(paths) == len(following) + len(items)
    assert set(paths) == set(following) | set(items)
    assert [len(path) for path in paths] == trie.depth.tolist()
    for node, path in enumerate(paths):
        first, count = trie.first_child[node], trie.child_count[node]
        assert count == len(following.get(path, []))
        assert [paths[child][-1] for child in range(first, first + count)] == following.get(path, [])
        assert all(trie.parent[first : first + count] == node)


@settings(deadline=None)
@given(identifier_arrays(), st.data())
def test_leaves_hold_their_items_in_catalog_order(identifiers, data):
    trie = ItemTrie.build(identifiers)
    _, items = naive(identifiers)
    paths = prefixes(trie)
    leaves = np.arange(trie.level_start[trie.length], trie.level_start[trie.length + 1])
    leaves = np.array(data.draw(st.lists(st.sampled_from(leaves.tolist()), max_size=12)), np.int64)
    which, found = trie.items_of(leaves)
    expected = [(place, item) for place, leaf in enumerate(leaves) for item in items[paths[leaf]]]
    assert list(zip(which.tolist(), found.tolist(), strict=True)) == expected
    assert trie.identifiers == len(items)
    assert sorted(trie.leaf_item.tolist()) == list(range(len(identifiers)))


@settings(deadline=None)
@given(identifier_arrays())
def test_item_tokens_are_the_identifiers_it_was_built_from(identifiers):
    tokens = ItemTrie.build(identifiers).item_tokens()
    assert tokens.dtype == np.int64
    assert tokens.tolist() == identifiers.tolist()


@settings(deadline=None)
@given(identifier_arrays())
def test_the_numbering_is_breadth_first_and_sorted(identifiers):
    trie = ItemTrie.build(identifiers)
    paths = prefixes(trie)
    assert trie.length == identifiers.shape[1]
    assert trie.vocabulary.tolist() == sorted(set(identifiers.ravel().tolist()))
    assert paths == sorted(paths, key=lambda path: (len(path), path))
    for depth in range(trie.length + 1):
        assert set(trie.depth[trie.level_start[depth] : trie.level_start[depth + 1]].tolist()) == {depth}
    assert trie.column[0] == trie.parent[0] == -1


@settings(deadline=None)
@given(identifier_arrays(), st.data())
def test_children_of_many_nodes_are_each_ones_children_in_order(identifiers, data):
    trie = ItemTrie.build(identifiers)
    nodes = np.array(data.draw(st.lists(st.integers(0, len(trie.parent) - 1), max_size=12)), np.int64)
    which, child = trie.children(nodes)
    expected = [
        (place, kid)
        for place, node in enumerate(nodes)
        for kid in range(trie.first_child[node], trie.first_child[node] + trie.child_count[node])
    ]
    assert list(zip(which.tolist(), child.tolist(), strict=True)) == expected


def test_items_that_share_an_identifier_share_a_leaf():
    trie = ItemTrie.build(np.array([[5, 7], [5, 6], [5, 7], [9, 7]]))
    assert trie.identifiers == 3
    which, items = trie.items_of(np.array([4, 5, 3, 4]))
    assert (which.tolist(), items.tolist()) == ([0, 0, 1, 2, 3, 3], [0, 2, 3, 1, 0, 2])
    assert trie.tokens(np.array([[1, 2], [3, 4]])).tolist() == [[5, 9], [6, 7]]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (4,)])
def test_an_empty_catalog_is_refused(shape):
    with pytest.raises(CatalogError, match="at least one item"):
        ItemTrie.build(np.zeros(shape, np.int64))
