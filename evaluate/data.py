"""The requests of an evaluation: held-out users that the bundle can serve, and what counts as found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from ..catalog.errors import SpecBeamError
from ..catalog.histories.dataset import Dataset, Example
from ..catalog.items import Catalog
from .figures import Truth
from .settings import Settings


class DataFacts(msgspec.Struct, frozen=True):
    """What the requests are."""

    folder: str
    split: str
    requests: int
    users: int  # who may have several requests each
    left_out: int  # requests of the split whose history has no item of the bundle's catalog
    labels: int  # distinct labels of every request, summed
    unknown_labels: int  # of these, items that the bundle's catalog lacks: always missed
    warm_labels: int | None  # of these, items of training histories; None: the dataset has none
    items: int  # in the bundle's catalog
    rejects: int  # lines of the dataset that could not be used


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The requests, and what is to be known of them."""

    examples: tuple[Example, ...]
    truth: Truth
    facts: DataFacts

    @classmethod
    def of(cls, dataset: Dataset, settings: Settings, bundle: Path, catalog: Catalog, length: int) -> "HeldOut":
        """Those of a split that can be served, or a seeded draw of them.

        length: tokens of the longest identifier. Raises `SpecBeamError` where there is nobody, or where the
        dataset and the bundle (its path and catalog) do not belong together.
        """
        split = _split(dataset, settings)
        check_catalogs(dataset, split, settings.split, bundle, catalog)
        known = catalog.position.keys()
        examples = [example for example in split if not known.isdisjoint(example.history)]
        if not examples:
            raise SpecBeamError(
                f"{dataset.folder}: none of {len(split)} histories of the {settings.split} split has an item of "
                f"{bundle}. {_remedy(dataset)}"
            )
        left_out = len(split) - len(examples)
        if settings.users is not None and settings.users < len(examples):
            chosen = np.random.default_rng(settings.seed).choice(len(examples), settings.users, replace=False)
            examples = [examples[i] for i in np.sort(chosen).tolist()]
        ids = dataset.catalog.item_ids
        warm = {ids[i] for i in np.unique(np.concatenate(dataset.train)).tolist()} if dataset.train else None
        truth = Truth(
            tuple(example.user for example in examples), tuple(frozenset(example.labels) for example in examples),
            warm, len(known), length,
        )  # fmt: skip
        facts = DataFacts(
            str(dataset.folder), settings.split, len(examples), len(set(truth.users)), left_out,
            sum(map(len, truth.labels)), sum(len(wanted - known) for wanted in truth.labels),
            None if warm is None else sum(len(wanted & warm) for wanted in truth.labels), len(known),
            len(dataset.rejects),
        )  # fmt: skip
        return cls(tuple(examples), truth, facts)


def _split(dataset: Dataset, settings: Settings) -> tuple[Example, ...]:
    split = dataset.test if settings.split == "test" else dataset.valid
    if not split:
        raise SpecBeamError(
            f"{dataset.folder} has no requests in its {settings.split} split: expected "
            f'sequential_{settings.split}.txt, or {settings.split}.jsonl (.csv, .parquet) with "labels" beside a '
            "history. Or choose another --split."
        )
    return split


def check_catalogs(dataset: Dataset, split: Sequence[Example], name: str, bundle: Path, catalog: Catalog) -> None:
    """Raise `SpecBeamError` where the split's labels are not the bundle's items, or have other identifiers there."""
    wanted = {item for example in split for item in example.labels}
    theirs, ours = dataset.catalog, catalog.position
    if wanted.isdisjoint(ours):
        raise SpecBeamError(
            f"{dataset.folder} and {bundle} do not belong together: none of {len(wanted)} items to be found in the "
            f"{name} split is among the bundle's {len(ours)}. {_remedy(dataset)}"
        )
    common = [item for item in theirs.item_ids if item in ours]
    other = sum(theirs.identifiers[theirs.position[i]] != catalog.identifiers[ours[i]] for i in common)
    if 2 * other > len(common):
        raise SpecBeamError(
            f"{dataset.folder} and {bundle} do not belong together: of {len(common)} items in both, {other} have "
            f"another identifier in the bundle. {_remedy(dataset)}"
        )


def _remedy(dataset: Dataset) -> str:
    return f"Export a bundle with --catalog {dataset.index}, or evaluate this one on its own dataset."
