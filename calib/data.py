"""Histories for calibration, and others, with what came next, to compare rankings on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..catalog.errors import HistoryError, OptionError
from ..catalog.histories.dataset import Dataset, Example, last_step
from ..catalog.histories.read import read_histories
from ..catalog.histories.requests import HistoryRequest
from ..catalog.items import Catalog
from .calls import stratified


@dataclass(frozen=True)
class Split:
    """Histories to calibrate on, and those of other users to compare rankings on."""

    calibration: tuple[Example, ...]
    gate: tuple[Example, ...]


def read_examples(
    paths: Sequence[Path], catalog: Catalog, *, format: str | None = None, item_base: int | None = None
) -> tuple[list[Example], int]:
    """The requests of history files, or of all splits of a dataset's folder, that can be used; and how many cannot.

    What came next is a request's `labels`; where it has none, its last item, which is then no part of its
    history. Raises `HistoryError` where nothing can be used.
    """
    found: list[Example] = []
    unusable = 0
    files = [path for path in paths if not path.is_dir()]
    for folder in (path for path in paths if path.is_dir()):
        dataset = Dataset.open(folder, item_base=item_base)
        found += (*dataset.test, *dataset.valid, *dataset.last_steps)
        unusable += len(dataset.rejects)
    for entry in read_histories(files, format=format, item_base=item_base or 0) if files else ():
        example = last_step(entry) if isinstance(entry, HistoryRequest) else None
        if example is None:
            unusable += 1
        else:
            found.append(example)
    known = catalog.position
    usable = [e for e in found if any(item in known for item in e.history) and any(item in known for item in e.labels)]
    if len(usable) < 2:
        names = ", ".join(map(str, paths))
        raise HistoryError(
            f"{names}: {len(usable)} of {len(found) + unusable} histories can be used; expected at least two that have "
            "two items of the catalog (the last of which is what came next) or one and labels."
        )
    return usable, unusable + len(found) - len(usable)


def split(examples: Sequence[Example], size: int, gate: int, seed: int) -> Split:
    """Draw users to calibrate on, and at most `gate` of the others' requests.

    Some `size` of them, or half of all requests if that is less, stratified over the lengths of histories.
    """
    if size < 1:
        raise OptionError(f"got a calibration size of {size}; expected at least 1 history.")
    drawn = stratified([len(e.history) for e in examples], min(size, len(examples) // 2), seed)
    calibration = {examples[i].user: examples[i] for i in drawn}  # one request a user
    others = [e for e in examples if e.user not in calibration]
    order = np.random.default_rng(seed).permutation(len(others))[:gate]
    return Split(tuple(calibration.values()), tuple(others[i] for i in order))
