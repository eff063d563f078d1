"""A catalog as its owner has it: index.json and items.json, or tables (Parquet, Arrow), read as columns."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .columns import Columns
from .errors import CatalogError
from .index_json import read_index
from .naming import some
from .tables import ENDINGS, is_table, read_tables
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
        return [index] if is_table(index) else []
    inside = (path.relative_to(index) for path in index.rglob("*") if path.is_file())
    files = sorted(path for path in inside if not any(part.startswith((".", "_")) for part in path.parts))
    others = [str(path) for path in files if not is_table(path)]
    if not files or others:  # a catalog that lacks a part without a word would be the worst
        got = f"holds files that are no tables ({some(others)})" if others else "is a folder without tables"
        raise CatalogError(
            f"{index} {got}; expected an index.json, or files that end with {', '.join(ENDINGS)} alone (those whose "
            "names begin with . or _ are left out)."
        )
    return [index / path for path in files]
