"""What tests of serving share: engines that wait, fail or give no numbers for a history of their choice."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Lock
from typing import Any

import numpy as np

from scripted_recommender import SHAPE, SPEC, named
from scripted_search import random_catalog
from specbeam.catalog.prompts.encoder import PromptEncoder
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.base import Float32, ForwardInputs
from specbeam.engines.cache import KVCache
from specbeam.engines.scripted import ScriptedCache, ScriptedEngine
from specbeam.runtime import DraftShape, Recommendation, Recommender, Verification
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.stats import DecodeStats
from specbeam.serve import AsyncRecommender, Serving
from specbeam.serve.editions import Edition
from specbeam.serve.observer import Observer, Outcome
from specbeam.serve.worker import Worker

POLICIES = ("gathered", "in-flight")
PATIENCE = 60.0  # seconds until a test says that nothing came
ROWS = random_catalog(np.random.default_rng(5), items=60, length=3, codes=6)
ITEMS = tuple(f"i{i}" for i in range(len(ROWS)))
RAISES, NO_NUMBERS = ROWS[0, -1], ROWS[1, -1]  # tokens that end identifiers, so they are in prompts only
assert RAISES != NO_NUMBERS


def ending_in(token: int) -> tuple[str, ...]:
    """The items of an identifier that ends so."""
    return tuple(item for item, row in zip(ITEMS, ROWS, strict=True) if row[-1] == token)


HARMLESS = tuple(item for item in ITEMS if item not in ending_in(RAISES) + ending_in(NO_NUMBERS))
FIRST, ONE, TWO, THREE = HARMLESS[:4]


class Gate:
    """Where an engine's calls wait until as many may pass."""

    def __init__(self) -> None:
        self._changed, self._came, self._pass = Condition(), 0, 0.0

    def call(self) -> None:
        with self._changed:
            self._came += 1
            mine = self._came
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._pass >= mine, PATIENCE)

    def wait(self, calls: int = 1) -> None:
        """Until so many calls have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._came >= calls, PATIENCE)

    def let(self, calls: float = float("inf")) -> None:
        """So many more pass; all, unless said."""
        with self._changed:
            self._pass += calls
            self._changed.notify_all()


class Mark:
    """A token by which requests are known, as long as their prompts are in a cache."""

    def __init__(self, token: int) -> None:
        self._token, self._values = token, set[int]()

    def learn(self, ids: np.ndarray, values: np.ndarray) -> None:
        """Of a call's tokens [B, T] and the values [B, T] that they got."""
        self._values.update(values[ids == self._token].tolist())

    def rows(self, values: np.ndarray) -> np.ndarray:
        """[B] which rows of a cache [B, S] have it."""
        return np.isin(values, np.fromiter(self._values, np.uint64)).any(axis=1)


class MoodyEngine(ScriptedEngine):
    """Raises for a batch in which one has `RAISES`, and gives NaN to those that have `NO_NUMBERS`.

    late: not for the prompt, but in the calls behind it.
    """

    def __init__(self, columns: int, *, seed: int, gate: Gate | None = None, late: bool = False) -> None:
        super().__init__(columns, seed=seed)
        self._gate, self._late, self.prompts = gate, late, list[int]()
        self._raises, self._no_numbers = Mark(int(RAISES)), Mark(int(NO_NUMBERS))

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        assert isinstance(cache, ScriptedCache)
        if self._gate is not None:
            self._gate.call()
        before = cache.values
        logprobs = super().forward(inputs, cache)
        new = cache.values[:, before.shape[1] :]
        for mark in (self._raises, self._no_numbers):
            mark.learn(inputs.input_ids, new)
        seen = before if self._late else cache.values
        if self._raises.rows(seen).any():
            raise RuntimeError("the engine is out of order")
        logprobs[self._no_numbers.rows(seen)] = np.nan
        return logprobs


def moody(
    *, seed: int = 1, gate: Gate | None = None, late: bool = False, shape: DraftShape | None = SHAPE,
    verification: Verification | None = None, max_k: int | None = None,
) -> Recommender:  # fmt: skip
    """A recommender of `ROWS` on a moody engine, drafted by a scripted one that half agrees."""
    trie = ItemTrie.build(ROWS)
    target = MoodyEngine(len(trie.vocabulary), seed=seed, gate=gate, late=late)
    draft = None if shape is None else ScriptedEngine(len(trie.vocabulary), seed=seed, disagreement=0.4)
    loaded = Loaded(named(ROWS), trie, PromptEncoder(SPEC, trie.item_tokens(), 10_000), target, draft, max_k=max_k)
    return Recommender(loaded, planning=FixedPlanning(shape), verification=verification)


@dataclass
class Told(Observer):
    """What an observer was told."""

    refusals: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def refused(self, model: str) -> None:
        with self._lock:
            self.refusals += 1

    def ended(self, edition: Edition, outcome: Outcome, waited: float, seconds: float) -> None:
        assert 0 <= waited <= seconds
        with self._lock:
            self.outcomes.append(outcome)

    def called(self, edition: Edition, batch: int, stats: DecodeStats) -> None:
        with self._lock:
            self.batches.append(batch)


@contextmanager
def serving(
    recommender: Recommender, policy: str = "gathered", *, observer: Observer | None = None, **how: Any
) -> Iterator[AsyncRecommender]:  # fmt: skip
    """It, served; at the end all that waits is answered."""
    worker = Worker(Serving(policy=policy, **how), observer)  # type: ignore[arg-type]
    try:
        yield AsyncRecommender(edition(recommender), worker)
    except BaseException:
        worker.close(drain=False, timeout=0)  # its engine may stand at a gate
        raise
    assert worker.close(timeout=PATIENCE)


def edition(recommender: Recommender, version: str = "1") -> Edition:
    return Edition("scripted", version, version, recommender)


def assert_answers(got: Recommendation, expected: Recommendation) -> None:
    """The same answer, whatever it cost."""
    assert [entry.item for entry in got.items] == [entry.item for entry in expected.items]
    np.testing.assert_allclose(
        [entry.score for entry in got.items], [entry.score for entry in expected.items], atol=1e-4
    )
    said = ("available", "unknown_items", "shortened")
    assert [getattr(got, name) for name in said] == [getattr(expected, name) for name in said]


def alone(recommender: Recommender, history: Collection[str], k: int = 5, **asked: Any) -> Recommendation:
    """What a request gets that shares its batch with nobody."""
    (answer,) = recommender.run([recommender.encode(history, k=k, **asked)])
    assert isinstance(answer, Recommendation)
    return answer
