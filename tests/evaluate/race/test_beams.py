"""Reordered caches find what beam search finds; the floor repeats what the plain loop asked of its engine."""

import numpy as np
import pytest

from benchmarks.shared import ranking_fault
from scripted_recommender import make
from scripted_search import naive_beam_search, ragged_catalog, random_catalog
from specbeam.catalog.errors import EngineError
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.base import Float32, ForwardInputs
from specbeam.engines.cache import KVCache
from specbeam.engines.scripted import ScriptedEngine
from specbeam.evaluate.race.beams import BeamSeconds, ReorderedBeams
from specbeam.evaluate.race.floor import FloorRacer
from specbeam.evaluate.race.racers import items_of
from specbeam.runtime import Verification
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.search.prefix import SharedPrefix
from specbeam.runtime.search.scoring import Scoring
from specbeam.runtime.types import ScoringKind


@pytest.mark.parametrize("scoring", ["full", "constrained"])
@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("k", [1, 4, 300])
@pytest.mark.parametrize("shared", [0, 17])
def test_reordered_beams_are_beam_search(scoring: ScoringKind, ragged: bool, k: int, shared: int) -> None:
    rng = np.random.default_rng([k, shared])
    trie = ItemTrie.build((ragged_catalog if ragged else random_catalog)(rng, 60, 4, 4))
    engine = ScriptedEngine(len(trie.vocabulary), seed=3, sharpness=2.0)
    beginning = rng.integers(0, 50, shared)
    prompts = [np.concatenate([beginning, rng.integers(0, 50, length)]) for length in (7, 2, 5)]
    spent = BeamSeconds()
    found = ReorderedBeams(SharedPrefix(engine, beginning), trie, Scoring(scoring))(prompts, k, spent)
    width = min(k, trie.identifiers)
    for prompt, ranked in zip(prompts, found, strict=True):
        assert ranking_fault(ranked, naive_beam_search(trie, engine, prompt, width, scoring=scoring)) is None
    assert 3 * 2 <= spent.calls <= 3 * trie.length
    assert spent.nodes == width * (spent.calls - 3)
    assert spent.total_seconds >= spent.prompt_seconds + spent.target_seconds > 0


def test_an_engine_that_gives_no_numbers_is_told_of() -> None:
    trie = ItemTrie.build(np.array([[7, 1], [5, 6]]))
    engine = ScriptedEngine(len(trie.vocabulary), sharpness=float("nan"))
    search = ReorderedBeams(SharedPrefix(engine, np.zeros(0, np.int64)), trie, Scoring())
    with pytest.raises(EngineError, match="NaN or infinity"):
        search([np.array([1, 2])], 2, BeamSeconds())


def test_items_that_share_a_leaf_are_all_there() -> None:
    trie = ItemTrie.build(np.array([[7, 1], [5, 6], [7, 1], [5, 9]]))
    shared, other = int(trie.leaf_of[0]), int(trie.leaf_of[1])
    assert items_of(trie, [(shared, -1.0), (other, -2.0)], 9) == [(0, -1.0), (2, -1.0), (1, -2.0)]
    assert items_of(trie, [(shared, -1.0), (other, -2.0)], 1) == [(0, -1.0)]


class Watched(ScriptedEngine):
    """Remembers what it said."""

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        said = super().forward(inputs, cache)
        self.__dict__.setdefault("said", []).append(said.copy())
        return said


def test_the_floor_repeats_the_plain_loop_s_calls() -> None:
    """The same log-probabilities in the same order, also where requests leave the batch, and every time it is asked."""
    recommender = make(ragged_catalog(np.random.default_rng(2), 60, 5, 4), shape=None)
    engine = Watched(len(recommender.trie.vocabulary), seed=1)
    loaded = Loaded(recommender.catalog, recommender.trie, recommender.encoder._prompts, engine)
    racer = FloorRacer(loaded, Verification(scoring="full"))
    groups = [[recommender.encode([f"i{i + j}"] * (1 + i % 3)) for i in range(5)] for j in (0, 20)]
    before = len(engine.__dict__.get("said", []))
    racer.ready(groups, 2)
    recorded = engine.said[before:]
    for _ in range(2):
        engine.said.clear()
        for group in groups:
            assert racer.serve(group, 2) is None
            assert racer.spent.target_calls > 0
            assert racer.spent.total >= racer.spent.prompt > 0
            assert racer.spent.selection == pytest.approx(0, abs=1e-9)
        assert len(engine.said) == len(recorded) > 2
        for again, once in zip(engine.said, recorded, strict=True):
            np.testing.assert_array_equal(again, once)
    assert racer.lists(None, 2) is None
