"""Catalogs that change: random ones with their updates, and what must hold of every answer while they are swapped."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future

import numpy as np

from scripted_recommender import assert_same, make, named, pairs
from scripted_search import random_catalog
from specbeam.catalog.updates import CatalogUpdate, Entry, Title
from specbeam.runtime import Recommender, Verification
from specbeam.serve import Served


def entries(rows: np.ndarray, ids: Sequence[str]) -> tuple[Entry, ...]:
    """Items of token ids [n, L], spelled as `named` spells them."""
    catalog = named(rows, ids)
    pairs_of = zip(catalog.item_ids, catalog.identifiers, strict=True)
    return tuple(Entry(item=item, identifier=identifier) for item, identifier in pairs_of)


def grown(rows: np.ndarray, rng: np.random.Generator, more: int) -> np.ndarray:
    """More identifiers behind these [n, L], of the same tokens at the same depths."""
    new = np.stack([rng.choice(column, more) for column in rows.T], axis=1)
    return np.concatenate([rows, new])


def changed(
    rows: np.ndarray, items: int, kept: np.ndarray, verification: Verification | None = None, *, seed: int = 1
) -> tuple[Recommender, CatalogUpdate, Recommender]:
    """A recommender of the first `items` of all identifiers [n, L], what makes of it the one of those that are `kept`
    [n], and that one made from nothing, for the same engines."""
    first = np.arange(len(rows)) < items
    names = [f"i{i}" for i in range(len(rows))]
    retired = [names[i] for i in np.flatnonzero(first & ~kept)]
    added = np.flatnonzero(~first & kept)
    update = CatalogUpdate(add=entries(rows[added], [names[i] for i in added]), retire=tuple(retired))
    before, fresh = (make(rows, kept=mask, verification=verification, seed=seed) for mask in (first, kept))
    return before, update, fresh


def retitled(version: int) -> CatalogUpdate:
    """A change that shows in every answer."""
    return CatalogUpdate(titles=tuple(Title(item=f"i{i}", title=f"title {version}") for i in range(30)))


def check_unmixed(
    answers: Sequence[Future[Served]],
    histories: Sequence[Sequence[str]],
    k: int,
    by: Mapping[tuple[str, str], Recommender],
) -> None:
    """Every answer is the list of the very version of model and catalog that it names."""
    expected: dict[tuple[str, str, tuple[str, ...]], list[tuple[str, float]]] = {}
    for answer, history in zip(answers, histories, strict=True):
        served = answer.result(timeout=60)
        recommender = by[served.version, served.catalog]
        assert {item.item for item in served.recommendation.items} <= set(recommender.catalog.item_ids)
        key = served.version, served.catalog, tuple(history)
        if key not in expected:
            expected[key] = pairs(recommender.recommend([history], k)[0])
        assert_same(pairs(served.recommendation), expected[key])


def tiny_rows(seed: int = 0) -> np.ndarray:
    """Identifiers of thirty items."""
    return random_catalog(np.random.default_rng(seed), 30, 3, 4)
