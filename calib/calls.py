"""Calibration data: the calls that real searches make, recorded from the loop itself.

Prompts alone would miss what verification sends: trees of drafted nodes on cached prompts. The calls of a
search build on each other's caches, so only their small inputs are kept: running them in order makes the
keys and values again, in any engine.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..catalog.errors import HistoryError, OptionError
from ..engines.base import Engine, Float32, ForwardInputs, Int64
from ..engines.bundle.facts import Role
from ..engines.bundle.items import Bundle
from ..engines.cache import KVCache
from ..runtime.answers import answered
from ..runtime.loaded import Loaded
from ..runtime.options import Verification
from ..runtime.planning.policy import FixedPlanning
from ..runtime.recommender import Recommender
from ..runtime.types import DraftShape

TOP_K = 20
Arrays = list[NDArray[Any]]


class Copied(Protocol):
    """What a search's calls leave for the next one: an engine's cache, or the tensors themselves."""

    def copy(self) -> Self:
        """One of its own with the same content."""


Cache = TypeVar("Cache", bound=Copied)


@dataclass(frozen=True, eq=False)
class Calls:
    """What one engine was asked in a number of searches of one request each: nothing in them is padding."""

    searches: tuple[tuple[ForwardInputs, ...], ...]  # from short to long prompts; each call on what the last one left
    shared: tuple[ForwardInputs, ...]  # the call that every search begins behind: the beginning that all prompts share
    seed: int  # what the histories were drawn with
    prompts: tuple[Int64, ...] = ()  # [P] of every search, where an encoder reads them; (): they are decoded

    @property
    def count(self) -> int:
        """Calls of what decodes, in all."""
        return len(self.shared) + sum(map(len, self.searches))

    def some(self, searches: int) -> "Calls":
        """The calls of so many searches, spread evenly over the prompts' lengths."""
        last = len(self.searches) - 1
        places = np.linspace(0, last, min(searches, last + 1)).round().astype(int).tolist()
        prompts = tuple(self.prompts[i] for i in places) if self.prompts else ()
        return Calls(tuple(self.searches[i] for i in places), self.shared, self.seed, prompts)

    def walk(self, begin: Callable[[Int64 | None], Cache]) -> Iterator[tuple[ForwardInputs, Cache, int | None]]:
        """Every call in order, the cache to make it on (before the next is asked for), its number in its search.

        begin: makes an empty cache, beside a prompt that an encoder has read if it gets one. Without encoder there is
        one, which the shared calls fill (their number: None), and of which every search gets a copy.
        """
        beginning = None if self.prompts else begin(None)
        for inputs in self.shared:
            assert beginning is not None
            yield inputs, beginning, None
        for place, search in enumerate(self.searches):
            cache = begin(self.prompts[place]) if beginning is None else beginning.copy()
            for number, inputs in enumerate(search):
                yield inputs, cache, number


def begun(engine: Engine, prompt: Int64 | None) -> KVCache:
    """An engine's cache for one request, before its first call: see `Calls.walk`."""
    return engine.new_cache(1) if prompt is None else engine.read([prompt])


def record_calls(
    bundle: Bundle,
    histories: Sequence[Sequence[str]],
    target: Engine,
    draft: Engine | None,
    *,
    count: int,
    seed: int = 0,
    k: int = TOP_K,
    shape: DraftShape | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[Role, Calls]:
    """What the engines of a bundle are asked when `count` histories get their k best items by speculative search.

    shape: what is drafted (default: `DraftShape()`). `progress` is told how many searches are done. The
    histories are drawn by `seed`, stratified over their lengths; those without a known item are left out, and
    too few are all taken. Raises `HistoryError` where none is left, `OptionError` for a `count` below 1.
    """
    if count < 1:
        raise OptionError(f"got {count} histories to calibrate on; expected at least 1.")
    catalog, trie = bundle.items()
    usable = [history for history in histories if any(item in catalog.position for item in history)]
    if not usable:
        raise HistoryError(f"None of {len(histories)} histories has an item of {bundle.path}; expected some.")
    recorders: dict[Role, Recorder] = {"target": Recorder(target)}
    if draft is not None:
        recorders["draft"] = Recorder(draft)
    loaded = Loaded(
        catalog, trie, bundle.prompts(trie), recorders["target"], recorders.get("draft"),
        engine="that calls are recorded of",
    )  # fmt: skip
    recommender = Recommender(
        loaded, planning=FixedPlanning((shape or DraftShape()) if draft else None),
        verification=Verification(scoring=bundle.manifest.scoring), batching=1,
    )  # fmt: skip
    chosen = stratified([min(len(h), bundle.manifest.prompt.history_length) for h in usable], count, seed)
    requests = [recommender.encode(usable[i], user=str(i)) for i in chosen]
    answered(recommender.run(requests, min(k, bundle.manifest.max_top_k), progress=progress))
    return {role: recorder.calls(seed) for role, recorder in recorders.items()}


def stratified(lengths: Sequence[int], count: int, seed: int) -> list[int]:
    """One index of each of `count` equal parts of all indices, ordered by length (ties at random)."""
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(lengths)), np.array(lengths)))
    return [int(rng.choice(part)) for part in np.array_split(order, min(count, len(order)))]


@dataclass(eq=False)
class _Search:
    """The calls on one cache, and those on the caches it was copied from."""

    before: tuple[ForwardInputs, ...] = ()
    prompt: Int64 | None = None  # [P] that an encoder has read
    calls: list[ForwardInputs] = field(default_factory=list)
    copied: bool = False


class _RecordedCache(KVCache):
    """A cache of the recorded engine. A cache of one request keeps what it is asked to keep: nothing is recorded."""

    def __init__(self, inner: KVCache, search: _Search, searches: list[_Search]) -> None:
        self.inner, self.search, self._searches = inner, search, searches
        searches.append(search)

    @property
    def batch(self) -> int:
        return self.inner.batch

    @property
    def length(self) -> int:
        return self.inner.length

    @property
    def read(self) -> int:
        return self.inner.read

    def copy(self) -> "_RecordedCache":
        self.search.copied = True
        before = (*self.search.before, *self.search.calls)
        return _RecordedCache(self.inner.copy(), _Search(before), self._searches)

    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        self.inner.keep(rows, slots)

    def join(self, other: KVCache) -> None:
        raise NotImplementedError("what is recorded is requests by themselves")


class Recorder(Engine):
    """An engine that remembers what it is asked, for caches of one request."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(columns=engine.columns)
        self._engine, self.start = engine, engine.start
        self._searches: list[_Search] = []

    def new_cache(self, batch: int) -> KVCache:
        return _RecordedCache(self._engine.new_cache(batch), _Search(), self._searches)

    def read(self, prompts: Sequence[Int64]) -> KVCache:
        return _RecordedCache(self._engine.read(prompts), _Search(prompt=prompts[0]), self._searches)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        assert isinstance(cache, _RecordedCache)
        assert cache.batch == 1, "padding between requests would enter the statistics"
        cache.search.calls.append(inputs)
        return self._engine.forward(inputs, cache.inner)

    def calls(self, seed: int) -> Calls:
        """What was recorded so far."""
        searches = [search for search in self._searches if search.calls and not search.copied]
        shared = searches[0].before if searches else ()
        prompts = tuple(search.prompt for search in searches if search.prompt is not None)
        return Calls(tuple(tuple(search.calls) for search in searches), shared, seed, prompts)


def replay(engine: Engine, calls: Calls) -> Iterator[Float32]:
    """Run recorded calls in another engine, in order; yields the log-probabilities [1, R, C] of every call.

    Every call is on what this engine's calls before it left, as in a search; each array is valid until the next.
    The recording and this engine must append the same number of slots a call.
    """
    for inputs, cache, _ in calls.walk(partial(begun, engine)):
        yield engine.forward(inputs, cache)
