"""Files of item ids: what all requests of a run may be recommended, or what is popular."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...catalog.errors import SpecBeamError
from ...catalog.items import Catalog
from ...catalog.packed import refuse_packed
from ..search.filters import ItemFilter


def read_ids(path: Path) -> list[str]:
    """The item ids of a file, one a line. Raises `SpecBeamError` for a file that cannot be read."""
    try:
        data = path.read_bytes()
        refuse_packed(str(path), data, SpecBeamError)
        return [item for line in data.decode("utf-8-sig").split("\n") if (item := line.strip())]
    except OSError as error:
        raise SpecBeamError(f"{path}: cannot be read: {error.strerror or error}. Check the path.") from None
    except UnicodeDecodeError:
        raise SpecBeamError(f"{path}: not UTF-8; expected item ids, one a line. Save the file as UTF-8.") from None


@dataclass(frozen=True)
class ItemList:
    """A file of item ids, one a line."""

    path: Path
    ids: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> "ItemList":
        """Raises `SpecBeamError` for a file that cannot be read."""
        return cls(path, frozenset(read_ids(path)))

    def known(self, catalog: Catalog, *, warn: Callable[[str], None]) -> frozenset[str]:
        """The ids that the catalog has; `warn` is told of others. Raises `SpecBeamError` if it has none of them."""
        unknown = sorted(unknown_ids(catalog, self.ids))
        if len(unknown) == len(self.ids):
            got = f"{unknown[0][:80]!r}, for example" if unknown else "an empty file"
            raise SpecBeamError(
                f"{self.path}: no item of the catalog in it (got {got}). Expected item ids, one a line, such as "
                f"{catalog.item_ids[0]!r}."
            )
        if unknown:
            warn(
                f"{self.path}: {len(unknown)} of {len(self.ids)} items are not in the catalog "
                f"(e.g. {unknown[0][:80]!r}); they are ignored"
            )
        return self.ids.difference(unknown) if unknown else self.ids


def unknown_ids(catalog: Catalog, ids: Collection[str]) -> list[str]:
    """The ids that a catalog lacks."""
    asked = [*ids]
    return [asked[at] for at in np.flatnonzero(catalog.position.find(asked) < 0).tolist()]


def filter_of(
    allow: ItemList | None, deny: ItemList | None, catalog: Catalog, *, warn: Callable[[str], None]
) -> ItemFilter | None:
    """A filter for all requests; None without lists. See `ItemList.known`."""
    if allow is None and deny is None:
        return None
    allowed, denied = (None if given is None else given.known(catalog, warn=warn) for given in (allow, deny))
    return ItemFilter(allowed, denied or frozenset())
