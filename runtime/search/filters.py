"""What a request may be recommended: allow- and deny-lists as masks on the trie, which is never rebuilt."""

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from threading import Lock

import numpy as np

from ...catalog import checks
from ...catalog.items import Catalog
from ...catalog.trie import ItemTrie, blocks
from ..types import Bool, CompiledFilter, Int64, is_among

REMEMBERED = 64  # compiled lists; requests of one region or shop share theirs
LONG = 10_000  # ids of a deny-list that is not put together with each request's own
FEW, LARGE = 10_000, 1 << 20  # ids of a list, and nodes of a trie, for which lists take less than masks
REMEMBERED_BYTES = 256 << 20  # that they may take, but for the last one


@dataclass(frozen=True, init=False)
class ItemFilter:
    """Items a request may be recommended: those of `allow` (None: all) without those of `deny`; ids that the catalog
    lacks say nothing. Any iterable of ids is made a frozen set, whole numbers among them their digits, as in history
    files. Raises `OptionError` for what is none."""

    allow: frozenset[str] | None
    deny: frozenset[str]
    beneath: "ItemFilter | None" = field(default=None, repr=False)  # a long one that this one comes on top of

    def __init__(self, allow: Iterable[str | int] | None = None, deny: Iterable[str | int] = frozenset()) -> None:
        object.__setattr__(self, "allow", None if allow is None else checks.id_set(allow, "allow"))
        object.__setattr__(self, "deny", checks.id_set(deny, "deny"))

    def both(self, other: "ItemFilter") -> "ItemFilter":
        """What both filters allow. other: a request's own; this one may be long."""
        if len(self.deny) > LONG and (other.allow is not None or other.deny):
            return self._beneath(other)
        allow = other.allow if self.allow is None else self.allow if other.allow is None else self.allow & other.allow
        # A long list that all requests share is not copied, nor hashed anew, for each of them.
        deny = self.deny | other.deny if self.deny and other.deny else self.deny or other.deny
        return ItemFilter(allow, deny)

    def _beneath(self, other: "ItemFilter") -> "ItemFilter":
        """As `both`: this list is neither copied nor compiled anew."""
        if other.allow is not None:
            allow = other.allow if self.allow is None else self.allow & other.allow
            return ItemFilter(allow - self.deny, other.deny)
        own = ItemFilter(None, other.deny)
        object.__setattr__(own, "beneath", self)
        return own


class FilterCompiler:
    """Compiles filters for one catalog; those it has seen lately cost nothing. Safe to share between threads."""

    def __init__(self, catalog: Catalog, trie: ItemTrie) -> None:
        self._position, self._trie = catalog.position, trie
        self._seen: OrderedDict[ItemFilter, CompiledFilter] = OrderedDict()
        self._lock = Lock()
        self._everything = CompiledFilter(None, None, len(trie.item), trie.identifiers)

    def compile(self, wanted: ItemFilter | None) -> CompiledFilter | None:
        """A filter as masks, remembered; None where all is allowed."""
        if wanted is None or (wanted.allow is None and not wanted.deny):
            return None
        if wanted.beneath is not None:
            return self.without(self.compile(wanted.beneath), self._places(wanted.deny))
        asked = len(wanted.deny if wanted.allow is None else wanted.allow)
        if asked <= FEW and len(self._trie.parent) > LARGE:
            return self._few(wanted)
        with self._lock:
            if wanted in self._seen:
                self._seen.move_to_end(wanted)
                return self._seen[wanted]
        items = np.full(len(self._trie.item), wanted.allow is None)
        for ids, allowed in ((wanted.allow or (), True), (wanted.deny, False)):
            items[self._places(ids)] = allowed
        compiled = compiled_mask(self._trie, items)
        with self._lock:
            self._seen[wanted] = compiled
            most = max(1, REMEMBERED_BYTES // (len(items) + len(self._trie.parent)))
            while len(self._seen) > min(REMEMBERED, most):
                self._seen.popitem(last=False)
        return compiled

    def _places(self, ids: Collection[str]) -> Int64:
        """Of the ids that the catalog has."""
        places = self._position.find([*ids])
        return places[places >= 0]

    def _few(self, wanted: ItemFilter) -> CompiledFilter | None:
        """A short list for a large catalog: what it names is looked at, and nothing else."""
        if wanted.allow is None:
            return self.without(None, self._places(wanted.deny))
        trie, chosen = self._trie, np.unique(self._places(wanted.allow - wanted.deny))
        leaves = np.unique(trie.leaf_of[chosen]).astype(np.int64)
        paths, nodes = [np.zeros(1, np.int64)], leaves
        while len(nodes):
            paths.append(nodes)
            above = np.unique(trie.parent[nodes]).astype(np.int64)
            nodes = above[above > 0]
        return CompiledFilter(
            None, None, len(chosen), len(leaves), chosen=chosen, paths=np.unique(np.concatenate(paths))
        )

    def without(self, base: CompiledFilter | None, excluded: Int64) -> CompiledFilter | None:
        """`base` without a few items (catalog positions, in any order): only their paths are looked at."""
        if not len(excluded):
            return base
        base, trie = base or self._everything, self._trie
        items = np.union1d(base.excluded, excluded)
        gone = np.setdiff1d(items, base.excluded)
        count = base.count - int(np.count_nonzero(base.allows(gone)))
        less = replace(base, excluded=items, count=count)
        nodes = np.unique(trie.leaf_of[items]).astype(np.int64)
        which, item = trie.items_of(nodes)
        nodes = nodes[np.bincount(which, less.allows(item), len(nodes)) == 0]
        identifiers = base.identifiers - int(np.count_nonzero(base.leads(nodes)))
        dead = nodes
        while len(nodes):
            above = np.unique(trie.parent[nodes]).astype(np.int64)
            above = above[above > 0]  # the root stays, as in `live_nodes`
            which, child = trie.children(above)
            alive = base.leads(child) & ~is_among(child, dead)
            nodes = above[np.bincount(which, alive, len(above)) == 0]
            dead = np.union1d(dead, nodes)
        return replace(less, identifiers=identifiers, dead=dead)


def compiled_mask(trie: ItemTrie, items: Bool) -> CompiledFilter:
    """A mask of allowed items [I] with all that follows from it."""
    live = live_nodes(trie, items)
    leaves = sum(np.count_nonzero(live[part] & (trie.child_count[part] == 0)) for part in blocks(len(live)))
    return CompiledFilter(items, live, int(np.count_nonzero(items)), int(leaves))


def live_nodes(trie: ItemTrie, items: Bool) -> Bool:
    """[M] nodes that lead to at least one of the items [I]; the root is one of them whatever happens."""
    live = np.zeros(len(trie.parent), bool)
    live[0] = True
    live[trie.leaf_of[items]] = True
    for d in range(trie.length, 1, -1):
        start, end = int(trie.level_start[d]), int(trie.level_start[d + 1])
        live[trie.parent[start:end][live[start:end]]] = True
    return live
