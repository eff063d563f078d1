"""A dataset: a catalog, histories to train on, and held-out users with the items that came next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..errors import HistoryError
from ..items import Catalog
from ..records import Reject
from .read import FORMATS, read_histories
from .requests import HistoryRequest

Int64 = NDArray[np.int64]
SPLITS = ("train", "valid", "test")
ATSPEED_BASE = 1  # AtSpeed's published files count items from 1, their index from 0


@dataclass(frozen=True)
class Example:
    """A held-out user: what is known, and what came next in time order."""

    user: str
    history: tuple[str, ...]  # item ids, oldest first
    labels: tuple[str, ...]  # item ids; the catalog may lack some


@dataclass(frozen=True, eq=False)
class Dataset:
    """Histories in three splits, read from one folder; see `open`."""

    folder: Path
    catalog: Catalog
    index: Path  # the catalog's files
    items: Path | None
    train: tuple[Int64, ...]  # catalog positions, oldest first; no history is empty
    valid: tuple[Example, ...]
    test: tuple[Example, ...]
    last_steps: tuple[Example, ...]  # of training histories: what came last, and what was before it
    rejects: tuple[Reject, ...]  # lines that could not be used

    @classmethod
    def open(cls, folder: Path, *, item_base: int | None = None) -> "Dataset":
        """Read a dataset's folder: `index.json`, if wanted `items.json`, and a file for each split.

        Either AtSpeed's `sequential_train.txt`, `sequential_valid.txt` and `sequential_test.txt` (one line a
        user; a validation user's history is the training line, a test user's the training and the
        validation line; users with nothing in a split are not in it), whose items are counted from
        `item_base` (default 1, as published); or `train`, `valid` and `test` with an ending that
        `read_histories` knows, rows being histories with `labels` (JSON lines, Parquet) or an `item_id`
        (MiniOneRec). In training a row's labels follow its history. Items of training that the catalog
        lacks are dropped. A split may be absent. Raises `CatalogError` for the catalog's files and
        `HistoryError` where there is no split at all.
        """
        folder = checks.path(folder, "folder")
        index, items = folder / "index.json", folder / "items.json"
        if not index.is_file():
            raise HistoryError(f"{folder} has no index.json; expected a dataset's folder with the catalog in it.")
        catalog = Catalog.load(index, items if items.is_file() else None)
        base = ATSPEED_BASE if item_base is None else item_base
        files = {split: _file_of(folder, split) for split in SPLITS}
        if not any(files.values()):
            raise HistoryError(
                f"{folder} has no histories: expected sequential_train.txt, or train, valid or test with one of the "
                f"endings {', '.join(ending for endings in FORMATS.values() for ending in endings)}."
            )
        rejects: list[Reject] = []
        rows = {split: _rows(path, base, rejects) for split, path in files.items()}
        known = catalog.position
        train = [np.array([known[i] for i in (*r.items, *r.labels) if i in known], np.int64) for r in rows["train"]]
        earlier: dict[str, tuple[str, ...]] = {}  # of AtSpeed's users
        examples: dict[str, tuple[Example, ...]] = {}
        for split, path in files.items():
            joined = _is_atspeed(path)
            if split != "train":
                examples[split] = _following(rows[split], earlier) if joined else _labelled(rows[split], rejects)
            for row in rows[split] if joined else ():
                earlier[row.user] = earlier.get(row.user, ()) + row.items
        return cls(
            folder, catalog, index, items if items.is_file() else None, tuple(filter(len, train)),
            examples["valid"], examples["test"], tuple(filter(None, map(last_step, rows["train"]))), tuple(rejects),
        )  # fmt: skip

    @property
    def valid_sequences(self) -> tuple[tuple[Int64, Int64], ...]:
        """(history, labels) of the validation split as catalog positions; users with nothing known are left out."""
        pairs = ((self.positions(example.history), self.positions(example.labels)) for example in self.valid)
        return tuple((history, labels) for history, labels in pairs if len(history) and len(labels))

    def positions(self, items: Sequence[str]) -> Int64:
        """Catalog positions [n] of the items that the catalog holds."""
        known = self.catalog.position
        return np.array([known[item] for item in items if item in known], np.int64)

    def require_training(self) -> None:
        """Raise `HistoryError` where there is nothing to train on."""
        if not self.train:
            raise HistoryError(
                f"{self.folder} has no training rows: expected sequential_train.txt, or train with one of the endings "
                f"{', '.join(ending for endings in FORMATS.values() for ending in endings)}, with items of index.json "
                f"in it ({len(self.rejects)} lines were unusable{_first(self.rejects)})."
            )


def last_step(row: HistoryRequest) -> Example | None:
    """What came next after a history: its labels or, where it has none, its last item; None where nothing is before."""
    if row.labels:
        return Example(row.user, row.items, row.labels)
    return Example(row.user, row.items[:-1], row.items[-1:]) if len(row.items) > 1 else None


def _first(rejects: Sequence[Reject]) -> str:
    return f", the first: {rejects[0].source}, line {rejects[0].line}: {rejects[0].reason}" if rejects else ""


def _file_of(folder: Path, split: str) -> Path | None:
    """The split's file. Raises `HistoryError` where there are several."""
    names = [f"sequential_{split}.txt", *(f"{split}{ending}" for endings in FORMATS.values() for ending in endings)]
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) > 1:
        raise HistoryError(f"{folder} holds {' and '.join(path.name for path in found)}; expected one file a split.")
    return found[0] if found else None


def _is_atspeed(path: Path | None) -> bool:
    return path is not None and path.name.endswith(FORMATS["atspeed"])


def _rows(path: Path | None, base: int, rejects: list[Reject]) -> list[HistoryRequest]:
    """A split's rows; what is none goes to `rejects` (a user of AtSpeed's files with no items is no fault)."""
    if path is None:
        return []
    atspeed = _is_atspeed(path)
    rows = []
    for entry in read_histories([path], item_base=base if atspeed else 0):
        if isinstance(entry, HistoryRequest):
            rows.append(entry)
        elif not atspeed or len(entry.raw.split()) != 1:
            rejects.append(entry)
    return rows


def _labelled(rows: Sequence[HistoryRequest], rejects: list[Reject]) -> tuple[Example, ...]:
    """Rows that say themselves what came next; the others are of no use and go to `rejects`."""
    expected = "labels (in MiniOneRec's files item_id), the items that came next"
    rejects.extend(
        Reject(row.line, f"user {row.user} has no labels; expected {expected}", " ".join(row.items), row.source)
        for row in rows
        if not row.labels
    )
    return tuple(Example(row.user, row.items, row.labels) for row in rows if row.labels)


def _following(rows: Sequence[HistoryRequest], earlier: dict[str, tuple[str, ...]]) -> tuple[Example, ...]:
    """A row's items as what followed the user's earlier splits."""
    return tuple(Example(row.user, earlier[row.user], row.items) for row in rows if row.user in earlier)
