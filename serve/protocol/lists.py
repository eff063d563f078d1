"""Ranked lists as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from ..editions import Edition
from ..tickets import Served
from .tensors import Tensor

NO_SCORE = float(np.finfo(np.float32).min)  # behind the end of a short list: JSON has no infinity


@final
@dataclass(frozen=True, eq=False)
class Lists:
    """B lists of up to K items; behind a shorter list's end stand "", -1 and `NO_SCORE`."""

    items: NDArray[np.object_]  # [B, K] ids
    titles: NDArray[np.object_]  # [B, K]; "" for items without one
    positions: NDArray[np.int64]  # [B, K] by the catalog's order
    scores: NDArray[np.float32]  # [B, K]
    model: str
    version: str
    catalog: str

    @classmethod
    def of_answers(cls, answers: Sequence[Served], edition: Edition, k: int) -> "Lists":
        """edition: that the answers came from."""
        position = edition.recommender.catalog.position
        places, scores = np.full((len(answers), k), -1, np.int64), np.full((len(answers), k), NO_SCORE, np.float32)
        for row, answer in enumerate(answers):
            found = answer.recommendation.items
            places[row, : len(found)] = position.find([each.item for each in found])
            scores[row, : len(found)] = [each.score for each in found]
        return cls.of_positions(places, scores, edition)

    @classmethod
    def of_positions(cls, places: NDArray[np.int64], scores: NDArray[np.float32], edition: Edition) -> "Lists":
        """places, scores [B, K]: catalog positions, -1 behind a list's end."""
        catalog = edition.recommender.catalog
        items, titles = np.full(places.shape, "", object), np.full(places.shape, "", object)
        for at in zip(*np.nonzero(places >= 0), strict=True):
            items[at] = catalog.item_ids[places[at]]
            titles[at] = catalog.titles[places[at]] or ""
        kept = np.where(places >= 0, scores, NO_SCORE).astype(np.float32)
        return cls(items, titles, places, kept, edition.model, edition.version, edition.catalog)

    def tensor(self, name: str) -> Tensor:
        """One of them by its output's name."""
        tensors: dict[str, Tensor] = {
            "items": self.items, "titles": self.titles, "positions": self.positions, "scores": self.scores
        }  # fmt: skip
        return tensors[name]
