"""Changes of a catalog: new items, items that are retired, other titles, or another catalog in its place."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from .errors import CatalogError
from .files import Frozen
from .items import Catalog, some
from .naming import refuse_odd_ids
from .records import Reject, read_files
from .repeats import repeated

ENTRY = 'expected such as {"item": "7", "identifier": ["<a_1>", "<b_4>"], "title": "Blue lamp"}, the title optional'
TITLE = 'expected such as {"item": "7", "title": "Blue lamp"}'
FAULTS = 5  # lines that a message names


class Entry(Frozen, frozen=True):
    """One item."""

    item: str
    identifier: tuple[str, ...]
    title: str | None = None


class Title(Frozen, frozen=True):
    """One item's new title; None: it has none."""

    item: str
    title: str | None


Line = TypeVar("Line", Entry, Title)


class CatalogUpdate(Frozen, frozen=True):
    """What becomes of a catalog: `catalog` in its place, or a change of it, in which items are retired first.

    Raises `CatalogError` for what contradicts itself.
    """

    catalog: tuple[Entry, ...] | None = None
    add: tuple[Entry, ...] = ()  # in catalog order behind the others
    retire: tuple[str, ...] = ()  # item ids
    titles: tuple[Title, ...] = ()

    def __post_init__(self) -> None:
        changes = bool(self.add or self.retire or self.titles)
        if (self.catalog is None) != changes:
            got = "nothing" if self.catalog is None else "a whole catalog and changes"
            raise CatalogError(
                f"the update holds {got}; expected a whole catalog (catalog), or changes of the one that is served "
                "(add, retire, titles)."
            )
        for what, ids in (
            ("added", [entry.item for entry in self.add]), ("retired", self.retire),
            ("given titles", [title.item for title in self.titles]),
        ):  # fmt: skip
            if twice := repeated(ids):
                raise CatalogError(f"items are {what} more than once: {some(twice)}. Keep one entry for each.")

    @classmethod
    def replacing(cls, catalog: Catalog) -> "CatalogUpdate":
        """The whole catalog."""
        rows = zip(catalog.item_ids, catalog.identifiers, catalog.titles, strict=True)
        return cls(catalog=tuple(Entry(item=i, identifier=t, title=title) for i, t, title in rows))

    @classmethod
    def read(cls, add: Path | None, retire: tuple[str, ...], titles: Path | None) -> "CatalogUpdate":
        """Changes as JSON lines: of `Entry` and of `Title`. Raises `CatalogError` with the lines that are neither."""
        added = () if add is None else _lines(add, Entry, ENTRY)
        return cls(add=added, retire=retire, titles=() if titles is None else _lines(titles, Title, TITLE))

    def of(self, before: Catalog) -> Catalog:
        """The catalog that comes of it.

        Raises `CatalogError` where items are to be retired or renamed that are not there, are there already, or none
        are left.
        """
        if self.catalog is not None:
            return _catalog(self.catalog, {})
        retired, titles = set(self.retire), {title.item: title.title for title in self.titles}
        _refuse(retired - _known(before, retired), "to be retired are not in the catalog")
        added = {entry.item for entry in self.add}
        kept = _known(before, added | titles.keys()) - retired
        _refuse(added & kept, "to be added are in the catalog already. To change an item's identifier, retire it, too")
        _refuse(titles.keys() - kept - added, "given titles are not in the catalog")
        rows = zip(before.item_ids, before.identifiers, before.titles, strict=True)
        every = [Entry(item=i, identifier=t, title=title) for i, t, title in rows if i not in retired]
        every += self.add
        if not every:
            raise CatalogError("the update leaves no item; expected at least one. To serve none, unload the model.")
        return _catalog(every, titles)


def _catalog(entries: Sequence[Entry], titles: Mapping[str, str | None]) -> Catalog:
    catalog = Catalog(
        [entry.item for entry in entries], [entry.identifier for entry in entries],
        [titles.get(entry.item, entry.title) for entry in entries],
    )  # fmt: skip
    refuse_odd_ids("the update", catalog.item_ids)
    return catalog


def _known(catalog: Catalog, ids: Collection[str]) -> set[str]:
    """The ids that a catalog has."""
    asked = [*ids]
    return {item for item, place in zip(asked, catalog.position.find(asked).tolist(), strict=True) if place >= 0}


def _lines(path: Path, kind: type[Line], expected: str) -> tuple[Line, ...]:
    """All lines of a file, each of another item."""
    lines: list[Line] = []
    faults: list[str] = []
    place: dict[str, int] = {}
    for _, line in read_files([path], kind, expected, CatalogError):
        if isinstance(line, Reject):
            faults.append(f"line {line.line}: {line.reason}")
        elif place.setdefault(line.content.item, line.line) != line.line:
            faults.append(f"line {line.line}: item {line.content.item!r} is on line {place[line.content.item]} already")
        else:
            lines.append(line.content)
    if faults:
        more = f"\n  and {len(faults) - FAULTS} more" if len(faults) > FAULTS else ""
        told = "".join(f"\n  {fault}" for fault in faults[:FAULTS])
        raise CatalogError(f"{path}: {len(faults)} lines cannot be used; nothing was changed.{told}{more}")
    return tuple(lines)


def _refuse(items: set[str], fault: str) -> None:
    if items:
        raise CatalogError(f"{len(items)} items that are {fault}: {some(sorted(items))}. Nothing was changed.")
