"""The item trie: every identifier as a path, in flat arrays (after STATIC's flattened tries)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .checks import shown
from .errors import CatalogError
from .rows import row_order
from .spans import spans as spans

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

BLOCK = 1 << 20  # numbers
DENSE = 1 << 24  # token ids up to which a table of all of them is made
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
    leaf_of: Int32  # [I] every item's leaf, by catalog order

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
        if not _is_padded(identifiers):
            raise CatalogError("An identifier has no tokens, or padding within; expected padding behind its end only.")
        vocabulary, columns = _as_columns(identifiers)
        return _built(vocabulary, columns)

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
        return int(sum(np.count_nonzero(self.child_count[part] == 0) for part in blocks(len(self.child_count))))

    def has_children(self, nodes: NDArray[np.integer], several: bool = False) -> Bool:
        """Whether nodes have a child, or several; a node of -1 has none. Same shape as `nodes`."""
        # The last node, which -1 leads to, is a leaf: it is one of the deepest.
        found: Bool = self.child_count[nodes] > int(several)
        return found

    @cached_property
    def shortest(self) -> int:
        """Tokens in the shortest identifier."""
        for part in blocks(len(self.child_count)):  # the first leaf is one of the least depth
            leaves = np.flatnonzero(self.child_count[part] == 0)
            if len(leaves):
                return int(self.depth[part.start + leaves[0]])
        raise AssertionError

    def leads_on(self, nodes: NDArray[np.integer]) -> Bool:
        """Whether nodes have a child that is not a leaf: what is drafted below others needs no evaluation."""
        if self.shortest == self.length:
            shallow: Bool = np.asarray(nodes) < self.level_start[self.length - 1]
            return shallow
        found: Bool = self._leads_on[nodes]
        return found

    @cached_property
    def _leads_on(self) -> Bool:
        """[M] as `leads_on`, where identifiers differ in length."""
        found = np.zeros(len(self.parent), bool)
        for part in blocks(len(self.parent)):
            found[self.parent[part][self.child_count[part] > 0]] = True
        found[-1] = False  # the root's parent
        return found

    def ends_with(self, end: int | None) -> bool:
        """Whether every identifier has the token `end` behind it, and nowhere else; None: there is no such token."""
        if end is None:
            return True
        for part in blocks(len(self.parent)):
            nodes = np.arange(max(part.start, 1), min(part.stop, len(self.parent)))
            leaf = self.child_count[nodes] == 0
            if ((self.tokens(nodes) == end) != leaf).any() or leaf[self.depth[nodes] == 1].any():
                return False
        return bool(self.child_count[0])

    def tokens(self, nodes: NDArray[np.integer]) -> Int64:
        """Token ids of nodes other than the root; same shape as `nodes`."""
        tokens: Int64 = self.vocabulary[self.column[nodes]]
        return tokens

    def item_columns(self, items: NDArray[np.integer] | None = None) -> Int64:
        """Columns [n, L] of items' tokens (None: of all, in catalog order), `PAD` behind the shorter ones."""
        node = self.leaf_of if items is None else self.leaf_of[items]
        columns = np.full((len(node), self.length), PAD, np.int64)
        for d in reversed(range(self.length)):
            here = node >= self.level_start[d + 1]
            columns[:, d] = np.where(here, self.column[node], PAD)
            node = np.where(here, self.parent[node], node)
        return columns

    def item_tokens(self, items: NDArray[np.integer] | None = None) -> Int64:
        """Token ids [n, L] of items (None: of all, in catalog order), `PAD` behind the shorter ones."""
        columns = self.item_columns(items)
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


def _is_padded(identifiers: NDArray[np.integer]) -> bool:
    """Whether every row begins with a token, and has its padding at its end."""
    before = identifiers[:, 0] != PAD
    if not before.all():
        return False
    for column in identifiers.T[1:]:
        here = column != PAD
        if (here & ~before).any():
            return False
        before = here
    return True


def _as_columns(identifiers: NDArray[np.integer]) -> tuple[Int64, Int32]:
    """The distinct tokens [C], and each row's tokens as their places among these [I, L]."""
    largest = int(identifiers.max())
    columns = np.empty(identifiers.shape, np.int32)
    if largest > DENSE or int(identifiers.min()) < PAD:
        inside = identifiers != PAD
        vocabulary, flat = np.unique(identifiers[inside], return_inverse=True)
        columns[~inside], columns[inside] = PAD, flat
        return vocabulary.astype(np.int64), columns
    seen = np.zeros(largest + 2, bool)  # the last, where PAD leads, is nobody's
    for column in identifiers.T:
        seen[column] = True
    seen[PAD] = False
    place = (np.cumsum(seen) - 1).astype(np.int32)
    place[PAD] = PAD
    for column, out in zip(identifiers.T, columns.T, strict=True):
        out[:] = place[column]
    return np.flatnonzero(seen), columns


def _built(vocabulary: Int64, columns: Int32) -> ItemTrie:
    """The trie of rows [I, L] of columns."""
    items, length = columns.shape
    order = row_order(columns, len(vocabulary))
    new = np.zeros(items, bool)  # sorted row i starts a new prefix of so many tokens
    new[0] = True
    above = np.zeros(items, np.int32)  # each row's node so far
    level_start, level_column, level_parent = [0, 1], [np.full(1, -1, np.int32)], [np.full(1, -1, np.int32)]
    for d in range(length):
        column = columns[:, d][order]
        new[1:] |= column[1:] != column[:-1]
        inside = column != PAD
        starts = new & inside
        level_column.append(column[starts])
        level_parent.append(above[starts])
        numbers = np.cumsum(starts, dtype=np.int32)
        numbers += level_start[-1] - 1
        above = np.where(inside, numbers, above)
        level_start.append(level_start[-1] + len(level_column[-1]))
    count = level_start[-1]
    parent, column = np.concatenate(level_parent), np.concatenate(level_column)
    child_count = np.bincount(parent[1:], minlength=count).astype(np.int32)
    if child_count[above].any():
        both = order[child_count[above] > 0]
        raise CatalogError(
            f"{len(both)} identifiers are the beginning of others (item {int(both[0])}, counted from 0, for "
            "example); expected an end token behind every identifier."
        )
    first_child, item_offset = np.ones(count, np.int32), np.zeros(count + 1, np.int32)
    np.cumsum(child_count[:-1], out=first_child[1:])
    first_child[1:] += 1
    np.cumsum(np.bincount(above, minlength=count), out=item_offset[1:])
    leaf_of = np.empty(items, np.int32)
    leaf_of[order] = above
    if (above[1:] < above[:-1]).any():  # identifiers of one length come in the order of their leaves
        order = order[np.argsort(above, kind="stable")]
    depth = np.repeat(np.arange(length + 1, dtype=np.int32), np.diff(level_start))
    return ItemTrie(
        vocabulary, first_child, child_count, column, parent, depth, np.array(level_start, np.int32), item_offset,
        order.astype(np.int32), leaf_of,
    )  # fmt: skip


def blocks(count: int) -> Iterator[slice]:
    """All of so many numbers, some at a time, so that what is worked out of them is never as large as all."""
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))
