"""The flat item trie against a trie of dictionaries."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specbeam.catalog import ItemTrie
from specbeam.catalog.errors import CatalogError
from specbeam.catalog.trie import PAD


def padded(rows):
    """Rows of any lengths as one array, `PAD` behind the shorter ones."""
    width = max(map(len, rows))
    return np.array([[*row, *[PAD] * (width - len(row))] for row in rows], np.int64)


@st.composite
def token_rows(draw, shortest=1):
    """Token ids with few distinct tokens, so that prefixes are shared and rows repeat; of one length, or not."""
    length = draw(st.integers(max(shortest, 1), 5))
    width = draw(st.integers(1, 6))
    least = draw(st.sampled_from([shortest, length]))
    rows = draw(st.lists(st.lists(st.integers(0, width), min_size=least, max_size=length), min_size=1, max_size=40))
    scale, shift = draw(st.sampled_from([(1, 0), (7, 3), (1000, 128_000)]))
    return [[token * scale + shift for token in row] for row in rows]


@st.composite
def identifier_arrays(draw):
    """Identifiers [I, L]: of one length, or of any with an end token, be it the largest id or the smallest."""
    rows = draw(token_rows(shortest=0))
    if len({len(row) for row in rows}) == 1 and rows[0] and draw(st.booleans()):
        return padded(rows)
    end = draw(st.sampled_from([999_999, 2]))
    return padded([[*(token + 3 for token in row), end] for row in rows])


def unpadded(row):
    return tuple(token for token in row if token != PAD)


def naive(identifiers):
    """Prefix -> sorted next tokens, and identifier -> items in catalog order."""
    following, items = {}, {}
    for item, row in enumerate(map(unpadded, identifiers.tolist())):
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
    leaves = np.flatnonzero(trie.child_count == 0)
    assert [paths[leaf] in items for leaf in leaves] == [True] * trie.identifiers
    leaves = np.array(data.draw(st.lists(st.sampled_from(leaves.tolist()), max_size=12)), np.int64)
    which, found = trie.items_of(leaves)
    expected = [(place, item) for place, leaf in enumerate(leaves) for item in items[paths[leaf]]]
    assert list(zip(which.tolist(), found.tolist(), strict=True)) == expected
    assert trie.identifiers == len(items)
    assert sorted(trie.item.tolist()) == list(range(len(identifiers)))
    assert [paths[leaf] for leaf in trie.leaf_of] == [unpadded(row) for row in identifiers.tolist()]
    inner = np.flatnonzero(trie.child_count)
    assert trie.items_of(inner)[1].tolist() == []


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
    assert trie.vocabulary.tolist() == sorted(set(identifiers[identifiers != PAD].tolist()))
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


@settings(deadline=None)
@given(token_rows())
def test_an_identifier_that_is_the_beginning_of_another_is_refused(rows):
    distinct = {tuple(row) for row in rows}
    beginnings = {row for row in distinct for other in distinct if row != other and other[: len(row)] == row}
    if not beginnings:
        assert ItemTrie.build(padded(rows)).identifiers == len(distinct)
        return
    count = sum(tuple(row) in beginnings for row in rows)
    with pytest.raises(CatalogError, match=rf"^{count} identifiers are the beginning of others .*end token") as caught:
        ItemTrie.build(padded(rows))
    named = int(re.search(r"item (\d+)", str(caught.value))[1])
    assert tuple(rows[named]) in beginnings


@pytest.mark.parametrize("rows", [[[1, 2], [PAD, PAD]], [[1, 2], [PAD, 2]], [[1, PAD, 3], [1, 2, 3]]])
def test_padding_stands_behind_an_identifier_only(rows):
    with pytest.raises(CatalogError, match="padding behind its end only"):
        ItemTrie.build(np.array(rows))


def test_leaves_of_many_depths():
    trie = ItemTrie.build(padded([[7, 2], [5, 6, 2], [7, 2], [2], [5, 2]]))
    assert (trie.length, trie.identifiers) == (3, 4)
    assert trie.item_offset.dtype == trie.item.dtype == np.int32
    assert prefixes(trie) == [(), (2,), (5,), (7,), (5, 2), (5, 6), (7, 2), (5, 6, 2)]
    assert trie.leaf_of.tolist() == [6, 7, 6, 1, 4]
    assert trie.item.tolist() == [3, 4, 0, 2, 1]
    assert trie.item_offset.tolist() == [0, 0, 1, 1, 1, 2, 2, 4, 5]
