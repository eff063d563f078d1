"""Item histories from Parquet files (needs the extra `specrec[parquet]`)."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import msgspec

from .errors import HistoryError
from .formats import Outcome, request_or_reject

ROWS = 1024  # decoded at a time


def read_parquet(path: Path) -> Iterator[Outcome]:
    """The columns `user` (strings or integers) and `items` (lists of them), one request a row.

    Line numbers are rows, counted from 1. Raises `HistoryError` when pyarrow is not installed, the
    file is not Parquet, or it lacks the columns.
    """
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise HistoryError(f'{path}: reading Parquet needs pyarrow. Run: pip install "specrec[parquet]"') from None
    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            missing = {"user", "items"} - set(file.schema_arrow.names)
            if missing:
                raise HistoryError(f"{path}: got the columns {file.schema_arrow.names}; expected user and items.")
            for batch in file.iter_batches(batch_size=ROWS, columns=["user", "items"]):
                users, histories = batch.column("user").to_pylist(), batch.column("items").to_pylist()
                for user, items in zip(users, histories, strict=True):
                    row += 1
                    raw = msgspec.json.encode({"user": user, "items": items}, enc_hook=str).decode()
                    yield request_or_reject(user, items, row, raw, str(path))
    except (pyarrow.ArrowException, OSError) as error:
        place = f"after row {row}" if row else "at its start"
        raise HistoryError(f"{path}: cannot be read as Parquet ({place}): {error}") from None
