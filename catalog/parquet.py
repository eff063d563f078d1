"""Item histories from Parquet files (needs the extra `specbeam[parquet]`)."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import msgspec

from .errors import HistoryError
from .extras import install
from .formats import Outcome, request_or_reject

REQUIRED, OPTIONAL = ("user", "items"), ("k", "allow", "deny", "exclude_history", "labels")
ROWS = 1024  # decoded at a time


def read_parquet(path: Path) -> Iterator[Outcome]:
    """The columns `user` (strings or integers) and `items` (lists of them), one request a row.

    The columns `k`, `allow`, `deny`, `exclude_history` and `labels` are read where they are, as in JSON lines; other
    columns are ignored. Line numbers are rows, counted from 1. Raises `HistoryError` when pyarrow is not installed, the
    file is not Parquet, or it lacks the columns.
    """
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise HistoryError(f"{path}: reading Parquet needs pyarrow. Run: {install('parquet')}") from None
    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not set(REQUIRED) <= set(names):
                raise HistoryError(f"{path}: got the columns {names}; expected user and items.")
            wanted = [name for name in REQUIRED + OPTIONAL if name in names]
            for batch in file.iter_batches(batch_size=ROWS, columns=wanted):
                for fields in batch.select(wanted).to_pylist():
                    row += 1
                    raw = msgspec.json.encode(fields, enc_hook=str).decode()
                    yield request_or_reject(**fields, line=row, raw=raw, source=str(path))
    except (pyarrow.ArrowException, OSError) as error:
        place = f"after row {row}" if row else "at its start"
        raise HistoryError(f"{path}: cannot be read as Parquet ({place}): {error}") from None
