"""The item trie: every identifier as a path, in flat arrays (after STATIC's flattened tries)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import CatalogError

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ItemTrie:
    """Identifiers of one length L as a trie of M nodes, numbered breadth first.

    Node 0 is the root (the prompt, depth 0). Siblings are contiguous and sorted by token id, and so
    are the nodes of one depth, which therefore fill `level_start[d]:level_start[d + 1]`. Nodes of
    depth L are the leaves; leaf j (counted from `level_start[L]`) stands for the items
    `leaf_item[leaf_offset[j]:leaf_offset[j + 1]]`, in catalog order.
    """

    vocabulary: Int64  # [C] token ids of the catalog, ascending; a *column* indexes this array
    first_child: Int32  # [M] node number of the first child; undefined where child_count is 0
    child_count: Int32  # [M]
    column: Int32  # [M] the node's last token as a column of `vocabulary`; -1 at the root
    parent: Int32  # [M] -1 at the root
    depth: Int32  # [M]
    level_start: Int32  # [L + 2]
    leaf_offset: Int32  # [leaves + 1]
    leaf_item: Int32  # [I]

    @classmethod
    def build(cls, identifiers: NDArray[np.integer]) -> "ItemTrie":
        """Build from token ids [I, L], one row an item in catalog order; rows may repeat.

        Raises `CatalogError` on an empty catalog. Cost: one lexicographic sort; no loop over items.
        """
        if identifiers.ndim != 2 or 0 in identifiers.shape:
            raise CatalogError(f"A catalog needs at least one item with at least one token; got {identifiers.shape}.")
        items, length = identifiers.shape
        vocabulary, flat = np.unique(identifiers, return_inverse=True)
        columns = flat.reshape(items, length).astype(np.int32)
        order = np.lexsort((np.arange(items), *columns.T[::-1]))
        columns = columns[order]
        # new[i, d]: sorted row i starts a new prefix of d + 1 tokens
        changed = np.ones((items, length), dtype=bool)
        changed[1:] = columns[1:] != columns[:-1]
        new = np.logical_or.accumulate(changed, axis=1)
        level_start = np.concatenate(([0, 1], 1 + np.cumsum(new.sum(axis=0)))).astype(np.int32)
        count = int(level_start[-1])
        column = np.full(count, -1, np.int32)
        parent = np.full(count, -1, np.int32)
        depth = np.zeros(count, np.int32)
        above = np.zeros(items, np.int32)  # each row's node one level up
        for d in range(length):
            here = slice(level_start[d + 1], level_start[d + 2])
            starts = new[:, d]
            column[here] = columns[starts, d]
            parent[here] = above[starts]
            depth[here] = d + 1
            above = (level_start[d + 1] + np.cumsum(starts) - 1).astype(np.int32)
        child_count = np.bincount(parent[1:], minlength=count).astype(np.int32)
        first_child = np.concatenate(([1], 1 + np.cumsum(child_count)[:-1])).astype(np.int32)
        leaf_offset = np.append(np.flatnonzero(new[:, -1]), items).astype(np.int32)
        return cls(
            vocabulary.astype(np.int64), first_child, child_count, column, parent, depth,
            level_start, leaf_offset, order.astype(np.int32),
        )  # fmt: skip

    @property
    def length(self) -> int:
        """L: tokens in every identifier."""
        return len(self.level_start) - 2

    @property
    def identifiers(self) -> int:
        """How many distinct identifiers (leaves) there are."""
        return len(self.leaf_offset) - 1

    def tokens(self, nodes: NDArray[np.integer]) -> Int64:
        """Token ids of nodes other than the root; same shape as `nodes`."""
        tokens: Int64 = self.vocabulary[self.column[nodes]]
        return tokens

    def item_tokens(self) -> Int64:
        """Token ids [I, L] of every item, in catalog order."""
        tokens = np.empty((len(self.leaf_item), self.length), np.int64)
        node = np.repeat(np.arange(self.level_start[-2], self.level_start[-1]), np.diff(self.leaf_offset))
        for d in reversed(range(self.length)):
            tokens[self.leaf_item, d] = self.tokens(node)
            node = self.parent[node]
        return tokens

    def items_of(self, leaves: NDArray[np.integer]) -> tuple[Int64, Int32]:
        """Items of every leaf [n], one leaf after another and each leaf's in catalog order.

        Returns (position in `leaves` of each item's leaf [m], item as catalog position [m]).
        """
        j = leaves - self.level_start[self.length]
        which, at = _spans(self.leaf_offset[j], self.leaf_offset[j + 1] - self.leaf_offset[j])
        return which, self.leaf_item[at]

    def children(self, nodes: NDArray[np.integer]) -> tuple[Int64, Int64]:
        """Children of every node of a flat array [n], one after another.

        Returns (position in `nodes` of each child's parent [m], child node [m]); m is the sum of
        the child counts, parents in the order given and siblings by token id.
        """
        return _spans(self.first_child[nodes], self.child_count[nodes])


def _spans(start: NDArray[np.integer], count: NDArray[np.integer]) -> tuple[Int64, Int64]:
    """The numbers start[i], start[i] + 1, ... (count[i] of them), one span after another; and each one's i."""
    count = count.astype(np.int64)
    which = np.repeat(np.arange(len(count)), count)
    return which, np.arange(len(which)) + (start - (np.cumsum(count) - count))[which]
