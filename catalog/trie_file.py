"""The item trie as a file, every array of which is checked once when it is read, in time linear in its size."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .arrays import kinds, map_arrays, write_arrays
from .errors import CatalogError
from .files import whole_file
from .items import Catalog, some
from .rows import is_permutation, row_numbers
from .trie import PAD, Int64, ItemTrie, blocks

TYPES = {field.name: "I64" if field.name == "vocabulary" else "I32" for field in fields(ItemTrie)}
ADDED = "leaf_of"  # that older files do not have; it says what `item` says


def save_trie(trie: ItemTrie, path: Path) -> None:
    """Write the trie's arrays under their field names (safetensors)."""
    with whole_file(path, replace=True) as file:
        write_arrays(file, {name: getattr(trie, name) for name in TYPES})


def load_trie(path: Path, *, looked_at: bool = False) -> ItemTrie:
    """Map what `save_trie` wrote. Raises `CatalogError`, without the file's name, where that is no trie.

    looked_at: all that is in the file was looked at before; then it costs the same for any trie.
    """
    arrays = map_arrays(path)
    if kinds(arrays) != {name: kind for name, kind in TYPES.items() if name in arrays or name != ADDED}:
        raise CatalogError(f"it holds {_described(kinds(arrays))}; expected {_described(TYPES)}.")
    older = ADDED not in arrays
    trie = ItemTrie(**{ADDED: np.empty(0, np.int32), **arrays})
    fault = None if looked_at else next(_faults(trie), None)
    if fault is not None:
        raise CatalogError(f"{fault}.")
    if older:
        arrays[ADDED] = _leaves(trie)
        return ItemTrie(**arrays)
    if not looked_at and not np.array_equal(trie.leaf_of, _leaves(trie)):
        raise CatalogError("the leaves of its items are others'.")
    return trie


def _leaves(trie: ItemTrie) -> NDArray[np.int32]:
    """[I] every item's leaf, from every leaf's items."""
    leaf = np.empty(len(trie.item), np.int32)
    leaf[trie.item] = np.repeat(np.arange(len(trie.parent), dtype=np.int32), np.diff(trie.item_offset))
    return leaf


def _described(types: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in sorted(types.items()))


def _faults(trie: ItemTrie) -> Iterator[str]:
    """What contradicts `ItemTrie`'s description, the first first: what comes later relies on what comes before."""
    shapes = {name: getattr(trie, name).shape for name in TYPES}
    if any(len(shape) != 1 for shape in shapes.values()):
        yield f"its arrays have the shapes {shapes}; expected one axis each"
    nodes, items, level = len(trie.parent), len(trie.item), trie.level_start
    own = trie.first_child, trie.child_count, trie.column, trie.depth, trie.item_offset[1:]
    if {len(array) for array in own} != {nodes} or min(nodes - 1, items, len(trie.vocabulary), len(level) - 2) < 1:
        yield f"its arrays have the shapes {shapes}; expected as many of each node, and some of all"
    if level[0] != 0 or level[1] != 1 or level[-1] != nodes or (np.diff(level) < 1).any():
        yield f"its levels do not fill {nodes} nodes, the root first"
    if (trie.depth != np.repeat(np.arange(len(level) - 1), np.diff(level))).any():
        yield "the depths of its nodes are not those of its levels"
    vocabulary = trie.vocabulary
    if vocabulary[0] < 0 or (vocabulary[1:] <= vocabulary[:-1]).any():
        yield "its tokens do not ascend"
    yield from _family_faults(trie)
    offset = trie.item_offset
    if offset[0] != 0 or offset[-1] != items or ((offset[1:] > offset[:-1]) != (trie.child_count == 0)).any():
        yield "its leaves, and only they, are to have items"
    if (offset[1:] < offset[:-1]).any() or not is_permutation(trie.item, items):
        yield f"its leaves do not share out {items} items"
    leaf = np.repeat(np.arange(nodes), np.diff(offset))
    if ((leaf[1:] == leaf[:-1]) & (trie.item[1:] <= trie.item[:-1])).any():
        yield "the items of a leaf are not in catalog order"


def _family_faults(trie: ItemTrie) -> Iterator[str]:
    """Parents, children, siblings."""
    children, parent, column = trie.child_count, trie.parent, trie.column
    nodes = len(parent)
    if children.min() < 0 or children.sum(dtype=np.int64) != nodes - 1:
        yield f"its {nodes} nodes do not have {nodes - 1} children"
    if parent[0] != PAD or (parent[1:] != np.repeat(np.arange(nodes), children)).any():
        yield "its nodes do not follow the order of their parents"
    if ((trie.first_child != 1 + np.cumsum(children) - children) & (children > 0)).any():
        yield "its first children are not where their siblings begin"
    if (trie.depth[parent[1:]] + 1 != trie.depth[1:]).any():
        yield "its nodes do not lie one level below their parents"
    if column[0] != -1 or column[1:].min() < 0 or column.max() >= len(trie.vocabulary):
        yield f"its nodes have columns beyond its {len(trie.vocabulary)} tokens"
    if ((parent[2:] == parent[1:-1]) & (column[2:] <= column[1:-1])).any():
        yield "its siblings do not ascend by token"


def check_agreement(catalog: Catalog, trie: ItemTrie, end_token: int | None) -> None:
    """Raise `CatalogError` where a trie's paths cannot be those of a catalog's identifiers, item by item.

    Where every string of an identifier is one token, it must be the same one everywhere, and no other's. Text of
    several tokens says less: items have one leaf where, and only where, they have one identifier.
    """
    if len(catalog.item_ids) != len(trie.item):
        raise CatalogError(f"the catalog has {len(catalog.item_ids)} items, the trie {len(trie.item)}")
    table, strings = catalog.identifiers.table, len(catalog.identifiers.strings)
    end = int(end_token is not None)
    if (catalog.identifiers.lengths + end == trie.depth[trie.leaf_of]).all():
        pair = _Pairs(strings, len(trie.vocabulary))
        for part in blocks(len(table)):
            pair.add(*_strings_and_columns(table, trie, part))
        wrong = [(part.start, pair.wrong(*_strings_and_columns(table, trie, part))) for part in blocks(len(table))]
        items = np.concatenate([start + places // table.shape[1] for start, places in wrong])
    else:
        numbers, first = row_numbers(table, strings)
        pair = _Pairs(len(first), len(trie.parent))
        pair.add(numbers, trie.leaf_of)
        items = pair.wrong(numbers, trie.leaf_of)
    if len(items):
        names = [catalog.item_ids[item] for item in dict.fromkeys(items.tolist())]
        raise CatalogError(f"identifiers of {len(names)} items differ from their paths (items {some(names)})")


def _strings_and_columns(table: NDArray[np.int32], trie: ItemTrie, part: slice) -> tuple[Int64, Int64]:
    """Some items' strings and, beside them, the columns of their tokens, one item after another; `PAD` behind."""
    width = table.shape[1]
    columns = trie.item_columns(np.arange(part.start, part.stop))[:, :width]
    strings = table[part].astype(np.int64)
    return strings.ravel(), np.where(strings == PAD, PAD, columns).ravel()


class _Pairs:
    """Numbers of two kinds that go together: each must stand beside one of the other kind, as at its first place."""

    def __init__(self, ones: int, others: int) -> None:
        self._one, self._other = np.full(ones + 1, -1), np.full(others + 1, -1)  # the last of each: for padding

    def add(self, ones: NDArray[np.integer], others: NDArray[np.integer]) -> None:
        """What stands side by side, after what was added before."""
        for known, keys, values in ((self._one, ones, others), (self._other, others, ones)):
            fresh = np.flatnonzero(known[keys] < 0)[::-1]
            known[keys[fresh]] = values[fresh]  # of several, numpy keeps the one that comes last

    def wrong(self, ones: NDArray[np.integer], others: NDArray[np.integer]) -> Int64:
        """Places of those that are not as they first were."""
        found = (self._one[ones] != others) | (self._other[others] != ones)
        return np.flatnonzero(found & (ones >= 0))
