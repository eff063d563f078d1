"""The floor: the calls that plain beam search made of an engine, repeated without the search.

What is recorded is what an engine was asked: the inputs of its calls and what became of its caches between them.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import final

from ...engines.base import Engine, Float32, ForwardInputs, Int64
from ...engines.cache import KVCache
from ...runtime import Recommender
from ...runtime.loaded import Loaded
from ...runtime.options import Verification
from ...runtime.planning.policy import FixedPlanning
from ...runtime.types import Request
from .racers import Racer, Spent


@dataclass(eq=False)
class Tape:
    """What was done with one cache, from its beginning."""

    begin: Callable[[], KVCache]
    events: list[ForwardInputs | tuple[Int64, Int64 | None]] = field(default_factory=list)

    def play(self, engine: Engine) -> tuple[list[float], float]:
        """Do it again; returns the seconds of the calls, each, and of all."""
        calls, start = list[float](), perf_counter()
        cache = self.begin()
        for event in self.events:
            if isinstance(event, ForwardInputs):
                before = perf_counter()
                engine.forward(event, cache)
                calls.append(perf_counter() - before)
            else:
                cache.keep(*event)
        return calls, perf_counter() - start


@final
class RecordedCache(KVCache):
    """A cache of a recorded engine."""

    def __init__(self, inner: KVCache, tape: Tape) -> None:
        self.inner, self.tape = inner, tape

    @property
    def batch(self) -> int:
        return self.inner.batch

    @property
    def length(self) -> int:
        return self.inner.length

    @property
    def read(self) -> int:
        return self.inner.read

    def copy(self) -> "RecordedCache":
        kept = self.inner.copy()
        return RecordedCache(self.inner.copy(), Tape(kept.copy))

    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        self.tape.events.append(deepcopy((rows, slots)))
        self.inner.keep(rows, slots)

    def join(self, other: KVCache) -> None:
        raise NotImplementedError("what is recorded is batches that nobody joins")


@final
class RecordedEngine(Engine):
    """An engine of which is known what it was asked."""

    def __init__(self, inner: Engine) -> None:
        super().__init__(columns=inner.columns)
        self.inner, self.start = inner, inner.start
        self.last: Tape | None = None  # of the latest call's cache

    def new_cache(self, batch: int) -> RecordedCache:
        return RecordedCache(self.inner.new_cache(batch), Tape(lambda: self.inner.new_cache(batch)))

    def read(self, prompts: Sequence[Int64]) -> RecordedCache:
        return RecordedCache(self.inner.read(prompts), Tape(lambda: self.inner.read(prompts)))

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        assert isinstance(cache, RecordedCache)
        cache.tape.events.append(deepcopy(inputs))  # what asks may use its arrays again
        self.last = cache.tape
        return self.inner.forward(inputs, cache.inner)


@final
class FloorRacer(Racer):
    """Repeats what was recorded for a group of requests."""

    def __init__(self, loaded: Loaded, verification: Verification) -> None:
        self._engine = RecordedEngine(loaded.target)
        loaded = replace(loaded, target=self._engine, draft=None, pool=None)
        self._plain = Recommender(loaded, planning=FixedPlanning(None), verification=verification)
        self._tapes: dict[tuple[int, ...], tuple[Tape, Spent]] = {}
        self._spent = Spent(0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def ready(self, groups: Sequence[Sequence[Request]], k: int) -> "FloorRacer":
        """Let the plain loop serve what is to be served later; what was recorded before is forgotten."""
        self._tapes = {}
        for group in groups:
            loop = self._plain.variant(self._plain.planning, len(group))
            loop.run(group, k)
            stats, tape = loop.stats, self._engine.last
            assert tape is not None
            counts = stats.target_calls, 0, stats.nodes_evaluated
            self._tapes[_named(group)] = tape, Spent(*counts, 0.0, 0.0, 0.0, 0.0, 0.0)
        return self

    def serve(self, group: Sequence[Request], k: int) -> None:
        tape, counted = self._tapes[_named(group)]
        calls, total = tape.play(self._engine.inner)
        self._spent = counted._replace(prompt=calls[0], target=total - calls[0], total=total)

    def lists(self, answer: object, k: int) -> None:
        return None

    @property
    def spent(self) -> Spent:
        return self._spent


def _named(group: Sequence[Request]) -> tuple[int, ...]:
    return tuple(map(id, group))
