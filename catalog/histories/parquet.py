"""Item histories from Parquet files (needs the extra `parquet`)."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from typing import Any

import msgspec

from ..errors import HistoryError
from ..extras import install
from ..items import some
from ..records import LONGEST, Reject
from ..repeats import repeated
from .requests import EXPECTED, Outcome, request_or_reject
from .storage import Place, Remote

REQUIRED, OPTIONAL = ("user", "items"), ("k", "allow", "deny", "exclude_history", "labels")
ROWS, BYTES = 1024, 1 << 20  # decoded at a time: at most, and about
READ = 1 << 18  # bytes of a column


def read_parquet(path: Place) -> Iterator[Outcome]:
    """The columns `user` (strings or integers) and `items` (lists of them), one request a row.

    The columns `k`, `allow`, `deny`, `exclude_history` and `labels` are read where they are, as in JSON lines; other
    columns are ignored. Line numbers are rows, counted from 1. Raises `HistoryError` when pyarrow is not installed, the
    file is not Parquet, or it lacks the columns; and behind the rows before it where a page is damaged.
    """
    try:
        _, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise HistoryError(f"{path}: reading Parquet needs pyarrow. Run: {install('parquet')}") from None
    row = 0
    for batch in _batches(path, parquet):
        for fields in _rows(batch):
            row += 1
            yield _outcome(fields, row, str(path))


def _batches(path: Place, parquet: Any) -> Iterator[Any]:
    """The record batches of a file. pyarrow's exceptions for damaged files have no common base: all are caught."""
    row = 0
    try:
        with ExitStack() as stack:
            source = stack.enter_context(path.opened()) if isinstance(path, Remote) else path
            file = stack.enter_context(parquet.ParquetFile(source, buffer_size=READ, pre_buffer=False))  # in parts
            wanted = _columns(path, file.schema_arrow.names)
            for group in range(file.num_row_groups):  # one by one, or a damaged one costs rows of the one before
                facts = file.metadata.row_group(group)
                rows = _rows_at_once(facts.num_rows, facts.total_byte_size)
                for batch in file.iter_batches(rows, row_groups=[group], columns=wanted, use_threads=False):
                    batch = batch.select(wanted)
                    batch.validate()
                    yield batch
                    row += len(batch)
    except HistoryError:
        raise
    except Exception as error:
        place = f"after row {row}" if row else "at its start"
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        raise HistoryError(
            f"{path}: cannot be read as Parquet ({place}): {reason}. The file is damaged or incomplete: write it again."
        ) from None


def _rows_at_once(rows: int, size: int) -> int:
    """How many of so many rows, which take `size` bytes, are decoded at a time."""
    return max(1, min(ROWS, rows * BYTES // max(size, 1)))


def _columns(path: Place, names: list[str]) -> list[str]:
    if not set(REQUIRED) <= set(names):
        raise HistoryError(f"{path}: got the columns [{some(names)}]; expected user and items.")
    wanted = [name for name in REQUIRED + OPTIONAL if name in names]
    if twice := [name for name in repeated(names) if name in wanted]:
        raise HistoryError(f"{path}: the columns {some(twice)} are there more than once; expected each once.")
    return wanted


def _rows(batch: Any) -> Iterator[dict[str, Any] | Exception]:
    """A batch's rows; for one that Python cannot hold (bytes that are no text, a date out of range), the reason."""
    step = _rows_at_once(len(batch), batch.nbytes)
    for start in range(0, len(batch), step):
        part = batch.slice(start, step)
        try:
            if part.nbytes > LONGEST:
                raise ValueError(f"longer than {LONGEST >> 20} MiB")
            yield from part.to_pylist()
        except Exception as error:
            if len(part) == 1:
                yield error
            else:
                for place in range(len(part)):
                    yield from _rows(part.slice(place, 1))


def _outcome(fields: Mapping[str, Any] | Exception, row: int, source: str) -> Outcome:
    if isinstance(fields, Exception):
        kind = "" if type(fields) is ValueError else f"{type(fields).__name__}: "  # the first is ours
        return Reject(row, f"{kind}{str(fields)[:300]}; {EXPECTED}", "", source)
    outcome = request_or_reject(**fields, line=row, raw="", source=source)
    return replace(outcome, raw=_shown(fields)) if isinstance(outcome, Reject) else outcome


def _shown(fields: Mapping[str, Any]) -> str:
    """A row as JSON, as far as it can be; it is shown where it was refused."""
    try:
        return msgspec.json.encode(fields, enc_hook=str).decode()
    except (ArithmeticError, TypeError, ValueError, RecursionError):
        return str(fields)
