"""Teacher data of a few histories."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specbeam.align.teaching.lessons import Places
from specbeam.align.teaching.searcher import Searcher
from specbeam.align.teaching.store import fill, open_store
from specbeam.align.teaching.trees import Trees, TreeStore
from specbeam.align.training.samples import Format
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.types import NodeList

SAMPLES, PART, WIDTH = 10, 4, 5


class Watched(Searcher):
    """A searcher that notes how many prompts it is asked for, and is interrupted at its n-th call."""

    def __init__(self, form: Format, at: int | None = None) -> None:
        engine = ScriptedEngine(len(form.identifiers.trie.vocabulary), seed=3)
        super().__init__(engine, form.identifiers.trie, form.spec.prefix_ids, WIDTH)
        self.asked: list[int] = []
        self._at = at

    def trees(self, prompts: Sequence[np.ndarray], also: NodeList | None = None) -> Trees:
        self.asked.append(len(prompts))
        if len(self.asked) == self._at:
            raise KeyboardInterrupt
        return super().trees(prompts, also)


@dataclass(frozen=True, eq=False)
class Lecture:
    """All that teacher data is made of; `store` opens its folder."""

    folder: Path
    target: Path
    form: Format
    places: Places
    width: int = WIDTH

    def store(self) -> TreeStore:
        return open_store(self.folder, [self.target], self.form, self.places, self.width)

    def fill(self, searcher: Searcher | None = None) -> list[tuple[int, int | None]]:
        """Make what lacks; returns what progress was told."""
        told: list[tuple[int, int | None]] = []
        fill(
            self.store(), searcher or Watched(self.form), self.places, self.form,
            lambda stage, done, total: told.append((done, total)),
        )  # fmt: skip
        return told

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}
