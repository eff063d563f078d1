"""The catalog: items, their identifiers and their titles, in the order of the index file, as columns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from .catalog_file import LINES, check, open_columns, open_lines, save
from .codes import Codes
from .columns import Columns
from .errors import CatalogError
from .index_files import read_catalog
from .lookup import Positions
from .naming import lacking as lacking
from .naming import named
from .naming import some as some
from .texts import OptionalTexts, TextColumn
from .trie import PAD

Int64 = NDArray[np.int64]
OTHER_KIND = "got item ids or identifiers of another kind; expected text, and tuples of text."


@final
class Catalog:
    """I items with identifiers of one or more strings each; several items may share an identifier.

    It holds columns, and makes the Python objects that are asked for. Raises `CatalogError` when it is empty, holds an
    item id twice, or an identifier is not made of non-empty strings.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, item_ids: Sequence[str], identifiers: Sequence[tuple[str, ...]], titles: Sequence[str | None]
    ) -> None:
        if not len(item_ids):
            raise CatalogError("the catalog has no items; expected at least one.")
        if not len(item_ids) == len(identifiers) == len(titles):
            counts = f"{len(item_ids)} item ids, {len(identifiers)} identifiers, {len(titles)} titles"
            raise CatalogError(f"got {counts}; expected as many of each.")
        try:
            self.item_ids = item_ids if isinstance(item_ids, TextColumn) else TextColumn.of(_texts(item_ids))
            self.identifiers = identifiers if isinstance(identifiers, Codes) else Codes.of(_tuples(identifiers))
            self.titles = titles if isinstance(titles, OptionalTexts) else OptionalTexts.of(_titles(titles))
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise CatalogError(f"{half!r} is half a surrogate pair; expected text.") from None
        if twice := [*self.position.repeated()]:
            raise CatalogError(f"{named(twice)} occur more than once; expected every item id once.")
        lengths = self.identifiers.lengths
        if not lengths.all() or not self.identifiers.strings.lengths.all():
            nothing = np.flatnonzero(self.identifiers.strings.lengths == 0)
            empty = np.flatnonzero((lengths == 0) | np.isin(self.identifiers.table, nothing).any(axis=1))
            ids = [self.item_ids[item] for item in empty.tolist()]
            raise CatalogError(f"{named(ids)} have an identifier without tokens or with an empty token.")

    @classmethod
    def of_columns(cls, columns: Columns) -> "Catalog":
        """Of columns that were checked."""
        made = cls.__new__(cls)
        made.item_ids, made.identifiers, made.titles, made.__dict__["position"] = columns
        return made

    @classmethod
    def load(cls, index: Path, items: Path | None, told: Callable[[int], object] = lambda items: None) -> "Catalog":
        """Read LC-Rec style files: `index` {"0": ["<a_47>", ...]}, `items` {"0": {"title": ...}} or {"0": "title"}.

        `index` may be a Parquet or an Arrow file, or a folder of such, with the columns `item`, `identifier` (lists of
        strings) and, if wanted, `title`. Items without a title have None; entries of `items` for other items are
        ignored. told: now and then, how many items, or titles, of a file have been read. Raises `CatalogError` with the
        file (and the line or row, where one is at fault).
        """
        return cls.of_columns(read_catalog(index, items, told))

    @classmethod
    def open(cls, path: Path, *, looked_at: bool = False) -> "Catalog":
        """Read what `save` wrote, or (*.jsonl) what it wrote before it wrote columns. Raises `CatalogError`.

        looked_at: all that is in the file was looked at before; then it costs the same for any catalog.
        """
        if path.suffix == LINES:
            try:
                return cls(*open_lines(path))
            except CatalogError as error:
                raise error if str(path) in str(error) else CatalogError(f"{path}: {error}") from None
        columns = open_columns(path)
        if not looked_at:
            check(columns, path)
        return cls.of_columns(columns)

    def check(self, path: Path) -> None:
        """Look at all that is in a file which was opened without that. Raises `CatalogError`."""
        check(self.columns, path)

    @property
    def columns(self) -> Columns:
        """All that it holds."""
        return Columns(self.item_ids, self.identifiers, self.titles, self.position)

    def save(self, path: Path) -> None:
        """Write the columns, which `open` maps into memory."""
        save(self.columns, path)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Catalog):
            return NotImplemented
        mine, theirs = ((each.item_ids, each.identifiers, each.titles) for each in (self, other))
        return mine == theirs

    def __repr__(self) -> str:
        return f"Catalog({self.item_ids!r}, {self.identifiers!r}, {self.titles!r})"

    @cached_property
    def position(self) -> Positions:
        """Item id to its place in catalog order."""
        return Positions.of(self.item_ids)

    @property
    def length(self) -> int:
        """Strings in the longest identifier."""
        return int(self.identifiers.table.shape[1])

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The distinct strings of all identifiers, sorted."""
        return tuple(self.identifiers.strings)

    def token_ids(self, lookup: Mapping[str, int]) -> Int64:
        """Token ids [I, L] where every string is one token of a vocabulary; `PAD` behind the shorter identifiers.

        `catalog.tokens.identifier_ids` also takes text apart. Raises `CatalogError` naming the tokens
        that `lookup` lacks, or that share an id.
        """
        missing = [token for token in self.tokens if token not in lookup]
        if missing:
            raise lacking(missing, len(self.tokens))
        owner: dict[int, str] = {}
        clash = [(owner[lookup[t]], t) for t in self.tokens if owner.setdefault(lookup[t], t) != t]
        if clash:
            raise CatalogError(f"different tokens have one id in the tokenizer: {some(clash)}; expected distinct ids.")
        return self.identifiers.ids(np.array([lookup[token] for token in self.tokens], np.int64))


def _texts(ids: Sequence[str]) -> Sequence[str]:
    if set(map(type, ids)) <= {str}:
        return ids
    raise CatalogError(OTHER_KIND)


def _tuples(identifiers: Sequence[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
    if set(map(type, identifiers)) <= {tuple} and set(map(type, chain.from_iterable(identifiers))) <= {str}:
        return identifiers
    raise CatalogError(OTHER_KIND)


def _titles(titles: Sequence[str | None]) -> Sequence[str | None]:
    if set(map(type, titles)) <= {str, type(None)}:
        return titles
    raise CatalogError("got titles of another kind; expected text, or None.")


def padded(lengths: Iterable[int], flat: Iterable[int]) -> Int64:
    """Rows of token ids, given one after another, as one array [I, L], `PAD` behind the shorter ones."""
    count = np.fromiter(lengths, np.int64)
    table = np.full((len(count), count.max(initial=0)), PAD, np.int64)
    table[np.arange(table.shape[1]) < count[:, None]] = np.fromiter(flat, np.int64, count.sum())
    return table
