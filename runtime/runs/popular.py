"""What is recommended to users without a history: the items that most others have."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import numpy as np

from ...catalog.errors import SpecBeamError
from ...catalog.items import Catalog
from ...pools.items.pool import ItemPool
from ..types import Bool, Int64, PopularItem
from .item_lists import ItemList, read_ids


@final
class PopularItems:
    """Items of a catalog, the most popular first."""

    def __init__(self, catalog: Catalog, order: Int64) -> None:
        """order [n]: positions in the catalog."""
        self._catalog, self._order = catalog, order

    def __getstate__(self) -> dict[str, Int64]:
        """What crosses to another process: without the catalog, which may be mapped, and which that one opens."""
        return {"_order": self._order}

    def within(self, catalog: Catalog) -> "PopularItems":
        """The same, of the same catalog as it was opened here."""
        return PopularItems(catalog, self._order)

    @classmethod
    def read(cls, path: Path, catalog: Catalog, *, warn: Callable[[str], None]) -> "PopularItems":
        """Of a file of item ids, one a line, the most popular first. Raises `SpecBeamError`; see `ItemList.known`."""
        ids = read_ids(path)
        known = ItemList(path, frozenset(ids)).known(catalog, warn=warn)
        return cls(catalog, _positions(catalog, [item for item in ids if item in known]))

    @classmethod
    def of_pool(cls, pool: ItemPool, catalog: Catalog) -> "PopularItems":
        """By how often each item is in a pool's histories; those that never are come last."""
        order = np.argsort(-pool.counts, kind="stable").tolist()
        found = _positions(catalog, [pool.ids[place] for place in order])
        if not len(found):
            raise SpecBeamError(f"{pool.path}: no item of the catalog in it. Build it from this shop's histories.")
        return cls(catalog, found)

    def best(self, k: int, allowed: Bool | None) -> tuple[PopularItem, ...]:
        """The k most popular ones; allowed [I]: those that may be recommended (None: all)."""
        order = self._order if allowed is None else self._order[allowed[self._order]]
        catalog = self._catalog
        return tuple(
            PopularItem(catalog.item_ids[i], catalog.titles[i], catalog.identifiers[i]) for i in order[:k].tolist()
        )


def _positions(catalog: Catalog, items: Sequence[str]) -> Int64:
    """Where items are in the catalog, each once; those that it lacks are left out."""
    places = catalog.position.find(items)
    return np.array(list(dict.fromkeys(places[places >= 0].tolist())), np.int64)
