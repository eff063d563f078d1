"""A catalog as its owner has it: index.json and items.json, or tables (Parquet, Arrow), read as columns."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .columns import Columns
from .errors import CatalogError
from .index_json import read_index
from .tables import ENDINGS, read_tables
from .texts import OptionalTexts, TextColumn
from .titles_json import read_titles


def read_catalog(index: Path, items: Path | None, told: Callable[[int], object]) -> Columns:
    """See `Catalog.load`."""
    tables = _tables(index)
    if tables:
        ids, identifiers, titles, position = read_tables(tables, told)
    else:
        ids, identifiers, position = read_index(index, told)
        nothing = np.zeros(len(ids), bool)
        titles = OptionalTexts(TextColumn(np.empty(0, np.uint8), np.zeros(len(ids) + 1, np.int64)), nothing)
    if items is not None:
        titles = read_titles(items, position, told)
    return Columns(ids, identifiers, titles, position)


def _tables(index: Path) -> list[Path]:
    """The tables that a path stands for; none: it is a file of JSON."""
    if not index.is_dir():
        return [index] if index.suffix in ENDINGS else []
    found = sorted(file for file in index.iterdir() if file.suffix in ENDINGS and not file.name.startswith("."))
    if not found:
        raise CatalogError(
            f"{index} is a folder without tables; expected an index.json, or files that end with {', '.join(ENDINGS)}."
        )
    return found
