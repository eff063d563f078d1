"""The item trie: every identifier as a path, in flat arrays (after STATIC's flattened tries)."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .checks import shown
from .errors import CatalogError

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

PAD = -1  # stands behind the end of an identifier that is shorter than the longest


@dataclass(frozen=True, eq=False)
class ItemTrie:
    """Identifiers of at most L tokens as a trie of M nodes, numbered breadth first.

    Node 0 is the root (the prompt, depth 0). Siblings are contiguous and sorted by token id, and so
    are the nodes of one depth, which therefore fill `level_start[d]:level_start[d + 1]`. A node
    without children is a leaf, at whatever depth; only leaves stand for items: node n for
    `item[item_offset[n]:item_offset[n + 1]]`, in catalog order.
    """

    vocabulary: Int64  # [C] token ids of the catalog, ascending; a *column* indexes this array
    first_child: Int32  # [M] node number of the first child; undefined where child_count is 0
    child_count: Int32  # [M]
    column: Int32  # [M] the node's last token as a column of `vocabulary`; -1 at the root
    parent: Int32  # [M] -1 at the root
    depth: Int32  # [M]
    level_start: Int32  # [L + 2]
    item_offset: Int32  # [M + 1]
    item: Int32  # [I]

    @classmethod
    def build(cls, identifiers: NDArray[np.integer]) -> "ItemTrie":
        """Build from token ids [I, L], one row an item in catalog order, `PAD` behind the shorter ones.

        Rows may repeat. Raises `CatalogError` on an empty catalog or identifier, and where one identifier
        is the beginning of another: an end token must tell them apart. Cost: one lexicographic sort; no
        loop over items.
        """
        if not isinstance(identifiers, np.ndarray) or not np.issubdtype(identifiers.dtype, np.integer):
            raise CatalogError(f"Identifiers are token ids, an array [I, L] of integers; got {shown(identifiers)}.")
        if identifiers.ndim != 2 or 0 in identifiers.shape:
            raise CatalogError(f"A catalog needs at least one item with at least one token; got {identifiers.shape}.")
        items, length = identifiers.shape
        inside = identifiers != PAD
        if not inside[:, 0].all() or (inside[:, 1:] & ~inside[:, :-1]).any():
            raise CatalogError("An identifier has no tokens, or padding within; expected padding behind its end only.")
        vocabulary, flat = np.unique(identifiers[inside], return_inverse=True)
        columns = np.full(identifiers.shape, -1, np.int32)
        columns[inside] = flat
        order = np.lexsort((np.arange(items), *columns.T[::-1]))
        columns, inside = columns[order], inside[order]
        # new[i, d]: sorted row i starts a new prefix of d + 1 tokens
        changed = np.ones((items, length), dtype=bool)
        changed[1:] = columns[1:] != columns[:-1]
        new = np.logical_or.accumulate(changed, axis=1) & inside
        level_start = np.concatenate(([0, 1], 1 + np.cumsum(new.sum(axis=0)))).astype(np.int32)
        count = int(level_start[-1])
        column = np.full(count, -1, np.int32)
        parent = np.full(count, -1, np.int32)
        depth = np.zeros(count, np.int32)
        above = np.zeros(items, np.int32)  # each row's node so far
        for d in range(length):
            here = slice(level_start[d + 1], level_start[d + 2])
            starts = new[:, d]
            column[here] = columns[starts, d]
            parent[here] = above[starts]
            depth[here] = d + 1
            above = np.where(inside[:, d], level_start[d + 1] + np.cumsum(starts) - 1, above).astype(np.int32)
        child_count = np.bincount(parent[1:], minlength=count).astype(np.int32)
        first_child = np.concatenate(([1], 1 + np.cumsum(child_count)[:-1])).astype(np.int32)
        if child_count[above].any():
            both = order[child_count[above] > 0]
            raise CatalogError(
                f"{len(both)} identifiers are the beginning of others (item {int(both[0])}, counted from 0, for "
                "example); expected an end token behind every identifier."
            )
        item_offset = np.concatenate(([0], np.cumsum(np.bincount(above, minlength=count)))).astype(np.int32)
        return cls(
            vocabulary.astype(np.int64), first_child, child_count, column, parent, depth, level_start, item_offset,
            order[np.argsort(above, kind="stable")].astype(np.int32),
        )  # fmt: skip

    def on(self, vocabulary: Int64) -> "ItemTrie":
        """The same trie, its columns those of a vocabulary [C] that holds all of its tokens, and others."""
        place = np.append(np.searchsorted(vocabulary, self.vocabulary), -1).astype(np.int32)  # the root's -1 is last
        if place.max() >= len(vocabulary) or (vocabulary[place[:-1]] != self.vocabulary).any():
            raise CatalogError("the catalog has tokens that the model has no columns for; expected those it has alone.")
        return replace(self, vocabulary=vocabulary, column=place[self.column])

    @property
    def length(self) -> int:
        """L: tokens in the longest identifier."""
        return len(self.level_start) - 2

    @cached_property
    def identifiers(self) -> int:
        """How many distinct identifiers (leaves) there are."""
        return int((self.child_count == 0).sum())

    @cached_property
    def inner(self) -> Bool:
        """[M + 1] nodes that have children; the last stands for a node of -1, which has none."""
        return np.append(self.child_count > 0, False)

    @cached_property
    def forks(self) -> Bool:
        """[M + 1] nodes that have several children, as `inner`."""
        return np.append(self.child_count > 1, False)

    @cached_property
    def leads_on(self) -> Bool:
        """[M] nodes with a child that is not a leaf: what is drafted below others needs no evaluation."""
        inner = np.flatnonzero(self.child_count[1:] > 0) + 1
        return np.bincount(self.parent[inner], minlength=len(self.parent)) > 0

    @cached_property
    def leaf_of(self) -> Int64:
        """[I] every item's leaf, by catalog order."""
        leaf = np.empty(len(self.item), np.int64)
        leaf[self.item] = np.repeat(np.arange(len(self.parent)), np.diff(self.item_offset))
        return leaf

    def ends_with(self, end: int | None) -> bool:
        """Whether every identifier has the token `end` behind it, and nowhere else; None: there is no such token."""
        if end is None:
            return True
        ends, leaf = self.tokens(np.arange(1, len(self.parent))) == end, self.child_count[1:] == 0
        return bool((ends == leaf).all() and self.child_count[0] and not leaf[self.depth[1:] == 1].any())

    def tokens(self, nodes: NDArray[np.integer]) -> Int64:
        """Token ids of nodes other than the root; same shape as `nodes`."""
        tokens: Int64 = self.vocabulary[self.column[nodes]]
        return tokens

    def item_columns(self) -> Int64:
        """Columns [I, L] of every item's tokens, in catalog order, `PAD` behind the shorter ones."""
        columns = np.full((len(self.item), self.length), PAD, np.int64)
        node = self.leaf_of
        for d in reversed(range(self.length)):
            here = self.depth[node] == d + 1
            columns[here, d] = self.column[node[here]]
            node = np.where(here, self.parent[node], node)
        return columns

    def item_tokens(self) -> Int64:
        """Token ids [I, L] of every item, in catalog order, `PAD` behind the shorter ones."""
        columns = self.item_columns()
        return np.where(columns == PAD, PAD, self.vocabulary[columns])

    def items_of(self, leaves: NDArray[np.integer]) -> tuple[Int64, Int32]:
        """Items of every leaf [n], one leaf after another and each leaf's in catalog order.

        Returns (position in `leaves` of each item's leaf [m], item as catalog position [m]).
        """
        which, at, _ = spans(self.item_offset[leaves], self.item_offset[leaves + 1] - self.item_offset[leaves])
        return which, self.item[at]

    def children(self, nodes: NDArray[np.integer]) -> tuple[Int64, Int64]:
        """Children of every node of a flat array [n], one after another.

        Returns (position in `nodes` of each child's parent [m], child node [m]); m is the sum of
        the child counts, parents in the order given and siblings by token id.
        """
        which, child, _ = self.families(nodes)
        return which, child

    def families(self, nodes: NDArray[np.integer]) -> tuple[Int64, Int64, Int64]:
        """As `children`, and where every node's children begin among them [n]."""
        return spans(self.first_child[nodes], self.child_count[nodes])


def spans(start: NDArray[np.integer], count: NDArray[np.integer]) -> tuple[Int64, Int64, Int64]:
    """The numbers start[i], start[i] + 1, ... (count[i] of them), one span after another.

    Returns each number's i [m], the numbers [m], and where every span begins among them [n].
    """
    which, begin = np.arange(len(count)).repeat(count), count.cumsum() - count
    return which, np.arange(len(which)) + (start - begin)[which], begin
