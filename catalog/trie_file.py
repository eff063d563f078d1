"""The item trie as a file, every array of which is checked once when it is read, in time linear in its size."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import chain, count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .errors import CatalogError
from .items import Catalog, some
from .trie import PAD, Int64, ItemTrie

TYPES = {field.name: "I64" if field.name == "vocabulary" else "I32" for field in fields(ItemTrie)}


def save_trie(trie: ItemTrie, path: Path) -> None:
    """Write the trie's arrays under their field names (safetensors)."""
    save_file({name: getattr(trie, name) for name in TYPES}, path)


def load_trie(path: Path) -> ItemTrie:
    """Read what `save_trie` wrote. Raises `CatalogError`, without the file's name, where that is no trie."""
    try:
        with safe_open(path, framework="numpy") as file:
            got = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            if got != TYPES:
                raise CatalogError(f"it holds {_described(got)}; expected {_described(TYPES)}.")
            trie = ItemTrie(**{name: file.get_tensor(name) for name in TYPES})
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise CatalogError(f"it cannot be read: {error}.") from None
    fault = next(_faults(trie), None)
    if fault is not None:
        raise CatalogError(f"{fault}.")
    return trie


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


def is_permutation(numbers: NDArray[np.integer], size: int) -> bool:
    """Whether the numbers [n] are 0 to `size` - 1, each once, in any order."""
    if len(numbers) != size or not size or numbers.min() < 0 or numbers.max() >= size:
        return len(numbers) == size == 0
    seen = np.zeros(size, bool)
    seen[numbers] = True
    return bool(seen.all())


def check_agreement(catalog: Catalog, trie: ItemTrie, end_token: int | None) -> None:
    """Raise `CatalogError` where a trie's paths cannot be those of a catalog's identifiers, item by item.

    Where every string of an identifier is one token, it must be the same one everywhere, and no other's. Text of
    several tokens says less: items have one leaf where, and only where, they have one identifier.
    """
    if len(catalog.item_ids) != len(trie.item):
        raise CatalogError(f"the catalog has {len(catalog.item_ids)} items, the trie {len(trie.item)}")
    strings = np.fromiter(map(len, catalog.identifiers), np.int64, len(trie.item))
    parts: Iterable[object] = catalog.identifiers
    items, meant = np.arange(len(strings)), trie.leaf_of
    if (strings + (end_token is not None) == trie.depth[meant]).all():
        parts, items = chain.from_iterable(catalog.identifiers), np.repeat(items, strings)
        meant = trie.item_columns()[np.arange(trie.length) < strings[:, None]]
    number: defaultdict[object, int] = defaultdict(count().__next__)
    of_part = np.fromiter(map(number.__getitem__, parts), np.int64, len(items))
    wrong = np.flatnonzero(_first(of_part)[of_part] != _first(meant)[meant])
    if len(wrong):
        names = [catalog.item_ids[item] for item in dict.fromkeys(items[wrong].tolist())]
        raise CatalogError(f"identifiers of {len(names)} items differ from their paths (items {some(names)})")


def _first(numbers: Int64) -> Int64:
    """Where each number, of 0 and more, stands first; undefined for those that do not occur."""
    first = np.zeros(int(numbers.max()) + 1, np.int64)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    return first
