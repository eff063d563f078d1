"""How a bundle becomes an edition that is served: chosen, held against the memory there is, loaded, warmed up."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..engines.bundle.items import Bundle
from ..runtime.answers import answered
from ..runtime.chosen import Chosen
from ..runtime.options import Batching, Drafting, EngineChoice, Verification
from ..runtime.recommender import Recommender
from ..runtime.types import Recommendation, RequestFailure
from .memory import check_model

LENGTHS = 4  # of histories that a model is warmed up with
K = 20  # items of the lists that it is warmed up with
EACH = 16  # batches up to so many are warmed up in every size, larger ones in halves of the largest


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
        """The engines that were chosen, warm. Raises `NoRoom` before anything is loaded, and `RequestError` where they
        give no numbers for any history."""
        check_model(chosen)
        recommender = Recommender.of(chosen)
        found = warm_up(recommender, chosen.bundle.manifest.prompt.history_length, recommender.batch_size)
        if all(isinstance(each, RequestFailure) for each in found):
            answered(found)
        return recommender


def warm_up(recommender: Recommender, longest: int, most: int) -> list[Recommendation | RequestFailure]:
    """First calls of the shapes that are expected: histories of 1 to `longest` items, in batches of 1 to `most`.

    Returns what came of them; it is in no statistics.
    """
    items, rng = recommender.catalog.item_ids, np.random.default_rng(0)
    lengths = np.unique(np.linspace(1, longest, LENGTHS).round().astype(int)).tolist()
    requests = [recommender.encode([items[i] for i in rng.integers(len(items), size=n)]) for n in lengths]
    own = recommender.variant(recommender.planning, most)
    batches = [[request] for request in requests]
    sizes = {*range(2, min(most, EACH) + 1), *(most >> halvings for halvings in range(most.bit_length()))} - {0, 1}
    batches += [[requests[i % len(requests)] for i in range(size)] for size in sorted(sizes)]
    return [answer for batch in batches for answer in own.run(batch, min(K, own.max_k or K))]
