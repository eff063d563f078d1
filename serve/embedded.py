"""A bundle served to a host in another language, which hands over simple values: the Python side of serve/cpp."""

import gc
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, final

from numpy.typing import ArrayLike

from ..catalog.errors import BundleError, EngineError, HistoryError, OptionError, PoolError, said
from ..runtime.options import Verification
from ..runtime.search.filters import ItemFilter
from ..runtime.types import Int64, RecommendedItem
from .arrays import Float32
from .editions import Edition
from .errors import Cancelled, Closed, DeadlinePassed, Overloaded, TooLarge
from .memory import NoRoom
from .recommender import AsyncRecommender
from .settings import Settings, Verifying, settings_of
from .tickets import Served

REMEMBERED = 64  # texts of verifications


class Status(IntEnum):
    """`specbeam_status` of serve/cpp/include/specbeam.h."""

    INVALID = 1
    BUNDLE = 3
    OVERLOADED = 4
    TIMEOUT = 5
    CANCELLED = 6
    CLOSED = 7
    FAILED = 8
    MEMORY = 9
    INTERNAL = 10


KINDS: tuple[tuple[type[BaseException], Status], ...] = (  # the first that fits
    (OptionError, Status.INVALID),
    (HistoryError, Status.INVALID),
    (PoolError, Status.INVALID),
    (BundleError, Status.BUNDLE),
    (Overloaded, Status.OVERLOADED),
    (DeadlinePassed, Status.TIMEOUT),
    (Cancelled, Status.CANCELLED),
    (Closed, Status.CLOSED),
    (EngineError, Status.FAILED),
    (NoRoom, Status.MEMORY),
    (TooLarge, Status.MEMORY),
    (MemoryError, Status.MEMORY),
)


class Answer(NamedTuple):
    """A list as the host reads it."""

    items: tuple[RecommendedItem, ...]
    places: list[int]  # of the items in the catalog
    unknown_items: int
    target_calls: int
    waited: float  # seconds
    seconds: float


def told(error: BaseException) -> tuple[int, str]:
    """A status other than 0, and what is said."""
    status = next((status for kind, status in KINDS if isinstance(error, kind)), Status.INTERNAL)
    return int(status), said(error) if status in (Status.INTERNAL, Status.MEMORY) else str(error)


@final
class Embedded:
    """One bundle, open and warm. Safe to share between threads."""

    def __init__(self, bundle: str, settings: str) -> None:
        """settings: of `Settings`, as JSON. Raises `BundleError` where the engines do not load, and as `Opening`."""
        wanted = settings_of(settings, Settings, "settings")
        opening, serving = wanted.opening(), wanted.serving()
        try:
            recommender = opening.load(opening.chosen(bundle))
        except EngineError as error:  # of a request, it would be `Status.FAILED`
            raise BundleError(str(error)) from error
        self._serves = AsyncRecommender(Edition(Path(bundle).name, "1", "1", recommender), serving=serving)
        self._position = recommender.catalog.position
        self.item_ids = tuple(recommender.catalog.item_ids)  # the C side reads a tuple, and lends its texts
        self._verification = lru_cache(REMEMBERED)(self._verifying)

    def prepared(self, allow: Sequence[str] | None, deny: Sequence[str]) -> ItemFilter:
        """A filter, compiled. Raises `OptionError`."""
        prepared = ItemFilter(allow, deny)
        self._serves.edition.recommender.encoder.filters.compile(prepared)
        return prepared

    def submit(
        self, items: Sequence[str], k: int, user: str | None, item_filter: ItemFilter | None, exclude_history: bool,
        priority: int, timeout_ms: float, verification: str, done: Callable[["Future[Served]"], object],
    ) -> "Future[Served]":  # fmt: skip
        """See `AsyncRecommender.submit`; timeout_ms 0: none; verification: of `Verifying`, as JSON, or ""."""
        future = self._serves.submit(
            items, k=k, user=user, item_filter=item_filter, exclude_history=exclude_history, priority=priority,
            timeout=timeout_ms / 1000 or None, verification=self._verification(verification),
        )  # fmt: skip
        future.add_done_callback(done)
        return future

    def recommend_arrays(
        self, tokens: ArrayLike, lengths: ArrayLike, k: int, priority: int, timeout_ms: float
    ) -> tuple[Int64, Float32]:
        """See `AsyncRecommender.recommend_arrays`."""
        timeout = timeout_ms / 1000 or None
        return self._serves.recommend_arrays(tokens, lengths, k, timeout=timeout, priority=priority)

    def answer(self, future: "Future[Served]") -> Answer:
        """Of one that has ended. Raises why there is none."""
        if future.cancelled():
            raise Cancelled("the request was cancelled.")
        served = future.result()
        found, position = served.recommendation, self._position
        places = [position[entry.item] for entry in found.items]
        stats = found.stats
        return Answer(found.items, places, found.unknown_items, stats.target_calls, served.waited, served.seconds)

    def close(self, drain: bool) -> None:
        """Take no more requests; answer what waits, or refuse it. Answers can still be read."""
        self._serves.close(drain=drain)
        self._verification.cache_clear()
        gc.collect()  # an edition and its lanes refer to each other, and hold the engines

    def _verifying(self, text: str) -> Verification | None:
        return settings_of(text, Verifying, "verification").over(self._serves.edition.recommender.verification)
