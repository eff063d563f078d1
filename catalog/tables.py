"""Catalogs as tables, Parquet or Arrow, one item a row, read batch by batch (needs the extra `parquet`)."""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from os.path import commonpath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codes import CodeBuilder, Codes
from .errors import CatalogError
from .extras import install
from .lookup import Positions
from .naming import SHOWN, refuse_odd_ids, some
from .repeats import repeated
from .texts import OptionalTexts, TextBuilder, TextColumn

PARQUET, ARROW = ".parquet", (".arrow", ".feather", ".ipc")
ENDINGS = (PARQUET, *ARROW)
ITEM, IDENTIFIER, TITLE = COLUMNS = ("item", "identifier", "title")
EXPECTED = "expected the columns item (text, or whole numbers), identifier (lists of text) and, if wanted, title (text)"
ROWS = 1 << 16  # at a time
Int64 = NDArray[np.int64]


def is_table(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in ENDINGS


def read_tables(
    paths: Sequence[Path], told: Callable[[int], object]
) -> tuple[TextColumn, Codes, OptionalTexts, Positions]:
    """Ids, identifiers and titles of all rows, in order. Raises `CatalogError` with the file and the row."""
    try:
        arrow = import_module("pyarrow")
    except ImportError:
        raise CatalogError(f"{paths[0]}: reading tables needs pyarrow. Run: {install('parquet')}") from None
    ids, codes, titles, there = TextBuilder(), CodeBuilder(), TextBuilder(), []
    ends = []
    for path in paths:
        row = 0
        for batch in _batches(path, arrow):
            with_titles = TITLE in batch.schema.names
            _add_texts(ids, _texts(arrow, batch.column(ITEM), path, row, ITEM))
            _add_identifiers(codes, arrow, batch.column(IDENTIFIER), path, row)
            given = batch.column(TITLE) if with_titles else arrow.nulls(len(batch), arrow.string())
            given = _cast(arrow, given, path, row, TITLE)
            there.append(given.is_valid().to_numpy(zero_copy_only=False))
            _add_texts(titles, given.fill_null(""))
            row += len(batch)
            told(len(ids))
        ends.append(len(ids))
    column = ids.column()
    if not len(column):
        raise CatalogError(f"{paths[0]}: the catalog has no items; expected at least one.")
    refuse_odd_ids(_source(paths), column)
    position = Positions.of(column)
    _refuse_repeated(position, paths, ends)
    return column, codes.column(), OptionalTexts(titles.column(), np.concatenate(there)), position


def _source(paths: Sequence[Path]) -> Path:
    """The file, or the folder of all of them."""
    return Path(commonpath(paths))


def _refuse_repeated(position: Positions, paths: Sequence[Path], ends: Sequence[int]) -> None:
    twice = position.repeated()
    if not twice:
        return
    starts, source = [0, *ends], _source(paths)

    def said(place: int) -> str:
        file = int(np.searchsorted(ends, place, side="right"))
        row = f"row {place - starts[file] + 1:,}"
        return row if len(paths) == 1 else f"{row} of {paths[file].relative_to(source)}"

    named = [f"item {item!r} is in {' and '.join(map(said, at))}" for item, at in [*twice.items()][:SHOWN]]
    more = f"; and {len(twice) - SHOWN} more items" if len(twice) > SHOWN else ""
    raise CatalogError(f"{source}: {'; '.join(named)}{more}. Keep one row for each item.")


def _batches(path: Path, arrow: Any) -> Iterator[Any]:
    """The record batches of a file. pyarrow's exceptions for damaged files have no common base: all are caught."""
    row = 0
    try:
        for batch in _parquet(path) if path.suffix.lower() == PARQUET else _arrow(path, arrow):
            batch.validate()
            yield batch
            row += len(batch)
    except CatalogError:
        raise
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read (after row {row:,}): {error}. Check the file.") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        raise CatalogError(
            f"{path}: cannot be read (after row {row:,}): {reason}. The file is damaged or incomplete: write it again."
        ) from None


def _parquet(path: Path) -> Iterator[Any]:
    with import_module("pyarrow.parquet").ParquetFile(path, pre_buffer=False) as file:
        wanted = _wanted(path, file.schema_arrow.names)
        yield from file.iter_batches(ROWS, columns=wanted, use_threads=False)


def _arrow(path: Path, arrow: Any) -> Iterator[Any]:
    """An Arrow file, or a stream of one."""
    ipc = import_module("pyarrow.ipc")
    with arrow.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            with ipc.open_file(source) as reader:
                for number in range(reader.num_record_batches):
                    yield from _sliced(path, reader.get_batch(number))
            return
        source.seek(0)
        with ipc.open_stream(source) as stream:
            for batch in stream:
                yield from _sliced(path, batch)


def _sliced(path: Path, batch: Any) -> Iterator[Any]:
    batch = batch.select(_wanted(path, batch.schema.names))
    for start in range(0, len(batch), ROWS):
        yield batch.slice(start, ROWS)


def _wanted(path: Path, names: Sequence[str]) -> list[str]:
    if not {ITEM, IDENTIFIER} <= set(names):
        raise CatalogError(f"{path}: got the columns [{some(names)}]; {EXPECTED}.")
    wanted = [name for name in COLUMNS if name in names]
    if twice := [name for name in repeated(names) if name in wanted]:
        raise CatalogError(f"{path}: the columns {some(twice)} are there more than once; expected each once.")
    return wanted


def _texts(arrow: Any, column: Any, path: Path, row: int, name: str) -> Any:
    """A column as texts, none of which may be missing (in a dictionary, either)."""
    found = _cast(arrow, column, path, row, name)
    if found.null_count:
        missing = int(np.flatnonzero(~found.is_valid().to_numpy(zero_copy_only=False))[0])
        raise CatalogError(f"{path}, row {row + missing + 1:,}: it has no {name}; {EXPECTED}.")
    return found


def _cast(arrow: Any, column: Any, path: Path, row: int, name: str, owner: Int64 | None = None) -> Any:
    """A column, or the elements of one, as texts; owner: of elements, the row of each in the batch."""
    kinds, held = arrow.types, column.type if owner is None else f"lists of {column.type}"
    kind = column.type.value_type if kinds.is_dictionary(column.type) else column.type
    other = (name == ITEM and kinds.is_integer(kind)) or (name == TITLE and kinds.is_null(kind))
    if not (other or kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)):
        raise CatalogError(f"{path}, from row {row + 1:,}: the column {name} holds {held}; {EXPECTED}.")
    try:
        found = column.cast(arrow.large_string())
        found.validate(full=True)  # that it is UTF-8
        return found
    except arrow.ArrowException as error:
        bad = _not_text(column.cast(arrow.large_string(), safe=False).cast(arrow.large_binary(), safe=False))
        at = "" if bad is None else f", row {row + (bad if owner is None else int(owner[bad])) + 1:,}"
        raise CatalogError(f"{path}{at}: the column {name} is no UTF-8 ({error}). Save the texts as UTF-8.") from None


def _not_text(column: Any) -> int | None:
    """The first of some bytes that are no UTF-8."""
    for number, raw in enumerate(column.to_pylist()):
        try:
            (raw or b"").decode()
        except UnicodeDecodeError:
            return number
    return None


def _add_texts(builder: TextBuilder, column: Any) -> None:
    """Texts of Arrow's `large_string`, straight from its buffers."""
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    raw = b"" if data is None else bytes(memoryview(data)[int(starts[0]) : int(starts[-1])])
    builder.add_bytes(raw, np.diff(starts).astype(np.int32))


def _add_identifiers(codes: CodeBuilder, arrow: Any, column: Any, path: Path, row: int) -> None:
    if arrow.types.is_fixed_size_list(column.type):
        column = column.cast(arrow.list_(column.type.value_type))
    if not (arrow.types.is_list(column.type) or arrow.types.is_large_list(column.type)):
        raise CatalogError(f"{path}, from row {row + 1:,}: the column {IDENTIFIER} holds {column.type}; {EXPECTED}.")
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int32)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    strings = _cast(arrow, column.flatten(), path, row, IDENTIFIER, owner).dictionary_encode()
    numbers = strings.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    known = strings.dictionary.to_pylist()
    empty = known.index("") if "" in known else -1
    bad = np.union1d(np.flatnonzero(lengths == 0), owner[(numbers < 0) | (numbers == empty)])
    if len(bad):
        raise CatalogError(
            f"{path}, row {row + int(bad[0]) + 1:,}: its identifier is not a non-empty list of non-empty strings. "
            'Expected such as ["<a_47>", "<b_103>"].'
        )
    codes.add_numbers(known, numbers, lengths)
