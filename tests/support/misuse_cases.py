"""A recommender and odd arguments."""

from dataclasses import replace
from typing import Any

import numpy as np

from scripted_recommender import make
from specbeam.catalog.items import Catalog
from specbeam.runtime import Drafting, EngineChoice, Recommender

ITEMS = 12


IDS = [str(i) for i in range(ITEMS)]


def recommender(**settings: Any) -> Recommender:
    """Twelve items, called "0" to "11", as most catalogs call theirs."""
    made = make(np.random.default_rng(0).integers(0, 4, (ITEMS, 3)), **settings)
    catalog = Catalog(tuple(IDS), made.catalog.identifiers, made.catalog.titles)
    return Recommender(replace(made._search._loaded, catalog=catalog), planning=made.planning)


R = recommender()


REQUEST = R.encode(["3"])


GROUPS = {"engine": EngineChoice, "drafting": Drafting}
