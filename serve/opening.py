"""How a bundle becomes an edition that is served: chosen, held against the memory there is, loaded, warmed up."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..engines.bundle.items import Bundle
from ..runtime.answers import answered
from ..runtime.chosen import Chosen
from ..runtime.options import Batching, Drafting, EngineChoice, Verification
from ..runtime.recommender import Recommender
from .memory import check_model

LENGTHS = 4  # of histories that a model is warmed up with
K = 20  # items of the lists that it is warmed up with


@dataclass(frozen=True)
class Opening:
    """What models are opened with."""

    engine: EngineChoice = field(default_factory=EngineChoice)
    drafting: Drafting = field(default_factory=Drafting)
    verification: Verification = field(default_factory=Verification)
    batching: Batching = field(default_factory=Batching)

    def chosen(self, bundle: str | Path | Bundle, engine: str | None = None) -> Chosen:
        """A bundle with its engine; engine: by name, in place of the usual one."""
        choice = self.engine if engine is None else replace(self.engine, name=engine, device=None)
        return Chosen.of(
            bundle, engine=choice, drafting=self.drafting, verification=self.verification, batching=self.batching
        )

    def load(self, chosen: Chosen) -> Recommender:
        """The engines that were chosen, warm. Raises `NoRoom` before anything is loaded, and `RequestError` where the
        engine's numbers are none."""
        check_model(chosen)
        recommender = Recommender.of(chosen)
        warm_up(recommender, chosen.bundle.manifest.prompt.history_length, recommender.batch_size)
        return recommender


def warm_up(recommender: Recommender, longest: int, most: int) -> int:
    """First calls of the shapes that are expected: histories of 1 to `longest` items, in batches of 1 to `most`.

    Returns how many batches that were. They are in no statistics.
    """
    items, rng = recommender.catalog.item_ids, np.random.default_rng(0)
    lengths = np.unique(np.linspace(1, longest, LENGTHS).round().astype(int)).tolist()
    requests = [recommender.encode([items[i] for i in rng.integers(len(items), size=n)]) for n in lengths]
    own = recommender.variant(recommender.planning, most)
    batches = [[request] for request in requests]
    batches += [[requests[i % len(requests)] for i in range(size)] for size in range(2, most + 1)]
    for batch in batches:
        answered(own.run(batch, min(K, own.max_k or K)))
    return len(batches)
