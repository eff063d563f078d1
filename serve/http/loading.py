"""Models of bundles, warm before the first request."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from ...catalog.errors import OptionError
from ...engines.bundle.items import Bundle
from ...runtime.chosen import Chosen
from ...runtime.options import Batching, Drafting, EngineChoice, Verification
from ...runtime.recommender import Recommender
from ..editions import Edition
from ..models import Models
from .asking import K
from .logs import Log

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
LENGTHS = 4  # of histories that a model is warmed up with
FIRST = "1"  # the version of a model and of a catalog that a server starts with


def named_bundles(words: tuple[str, ...]) -> dict[str, Bundle]:
    """BUNDLE or NAME=BUNDLE, opened; the default name is the folder's. Raises `OptionError` and `BundleError`."""
    found: dict[str, Bundle] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            name, path = Path(word).resolve().name, word
        if not NAME.fullmatch(name):
            raise OptionError(f"{name!r} cannot name a model in an address; expected NAME=BUNDLE, such as shop={path}.")
        if name in found:
            raise OptionError(f"two bundles are called {name!r}. Name one: NAME=BUNDLE, such as other={path}.")
        found[name] = Bundle.open(path)
    return found


@final
@dataclass(frozen=True)
class Loading:
    """How bundles become models that are served."""

    bundles: dict[str, Bundle]
    engine: EngineChoice
    drafting: Drafting
    verification: Verification
    batching: Batching

    def into(self, models: Models, log: Log) -> None:
        """Load all of them, and warm each up."""
        shared = False
        for name, bundle in self.bundles.items():
            chosen = Chosen.of(
                bundle, engine=self.engine, drafting=self.drafting, verification=self.verification,
                batching=self.batching,
            )  # fmt: skip
            if chosen.engine.startswith("onnxruntime") and not shared:  # the process is ours: one pool for all sessions
                from ...engines.onnxruntime.threads import share_threads

                share_threads(chosen.threads)
                shared = True
            recommender = Recommender.of(chosen)
            log.write("loaded", model=name, engine=chosen.engine, items=len(recommender.catalog.item_ids))
            calls = warm_up(recommender, bundle.manifest.prompt.history_length)
            log.write("warm", model=name, batches=calls)
            models.add(Edition(name, FIRST, FIRST, recommender), chosen.engine.split("-")[1])


def warm_up(recommender: Recommender, longest: int) -> int:
    """First calls of the shapes that are expected: histories of 1 to `longest` items, in batches of 1 to as many as
    share a call. Returns how many batches that were."""
    items, rng = recommender.catalog.item_ids, np.random.default_rng(0)
    lengths = np.unique(np.linspace(1, longest, LENGTHS).round().astype(int)).tolist()
    requests = [recommender.encode([items[i] for i in rng.integers(len(items), size=n)]) for n in lengths]
    own = recommender.variant(recommender.planning, recommender.batch_size)
    batches = [[request] for request in requests]
    batches += [[requests[i % len(requests)] for i in range(size)] for size in range(2, own.batch_size + 1)]
    for batch in batches:
        own.run(batch, min(K, own.max_k or K))
    return len(batches)
