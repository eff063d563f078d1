"""The last minute in numbers: an observer that forgets, and what it and the models tell."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import NamedTuple, final

import msgspec
import numpy as np

from ...runtime.stats import DecodeStats
from ..editions import Edition
from ..models import Models, UnknownModel
from ..observer import Observer, Outcome
from ..recommender import AsyncRecommender

WINDOW = 60.0  # seconds that are looked back
LATELY = 10.0  # likewise, for users a second: a rate over a minute is slow to show what happens
MOST = 1 << 16  # requests, and calls, that are remembered


class Figures(msgspec.Struct, frozen=True):
    """What happened lately; None: nothing that would tell."""

    users_per_second: float
    answered: int
    refused: int
    failed: int  # by the engine, or past their deadline
    target_calls: float | None  # a user
    plain_calls: float | None  # a user, had nothing been drafted
    calls_saved: float | None  # share of the plain calls, 0 to 1
    batch: float | None  # requests that shared a call, as a mean over calls
    p50: float | None  # milliseconds from a request's arrival to its end
    p95: float | None


class ModelFigures(msgspec.Struct, frozen=True):
    """One model as it serves now."""

    name: str
    version: str
    catalog: str
    items: int
    mode: str
    scoring: str


class Answer(msgspec.Struct, frozen=True):
    """All of it."""

    lately: Figures
    queue: int  # requests that wait now
    flying: int  # that share calls now
    models: tuple[ModelFigures, ...]


class _End(NamedTuple):
    at: float
    outcome: Outcome | None  # None: refused
    seconds: float


class _Call(NamedTuple):
    at: float
    batch: int  # 0: the end of a batch, which is no call
    target: int  # calls, summed over requests
    plain: int


@final
class LiveFigures(Observer):
    """Keeps what it is told for a minute. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock, self._lock = clock, Lock()
        self._start = clock()
        self._ends: deque[_End] = deque(maxlen=MOST)
        self._calls: deque[_Call] = deque(maxlen=MOST)

    def refused(self, model: str) -> None:
        self._end(None, 0.0)

    def ended(self, edition: Edition, outcome: Outcome, waited: float, seconds: float) -> None:
        self._end(outcome, seconds)

    def called(self, edition: Edition, batch: int, stats: DecodeStats) -> None:
        plain = stats.requests + int(stats.levels[1:].sum())  # the prompt, and every depth at which scores are needed
        with self._lock:
            self._calls.append(_Call(self._clock(), batch, stats.target_calls, plain))

    def _end(self, outcome: Outcome | None, seconds: float) -> None:
        with self._lock:
            self._ends.append(_End(self._clock(), outcome, seconds))

    def now(self) -> Figures:
        """The figures of the last minute."""
        now = self._clock()
        with self._lock:
            for told in (self._ends, self._calls):
                while told and told[0].at < now - WINDOW:
                    told.popleft()
            ends, calls = list(self._ends), list(self._calls)
        answered = [end for end in ends if end.outcome == "answered"]
        lately = sum(end.at >= now - LATELY for end in answered)
        target, plain = sum(call.target for call in calls), sum(call.plain for call in calls)
        middle, high = np.percentile([1000 * end.seconds for end in answered] or [0.0], (50, 95)).tolist()
        users, sizes = len(answered), [call.batch for call in calls if call.batch]
        return Figures(
            users_per_second=lately / min(LATELY, max(now - self._start, 1.0)),
            answered=users,
            refused=sum(end.outcome is None for end in ends),
            failed=sum(end.outcome in ("failed", "late") for end in ends),
            target_calls=target / users if users and calls else None,
            plain_calls=plain / users if users and calls else None,
            calls_saved=1 - target / plain if plain else None,
            batch=sum(sizes) / len(sizes) if sizes else None,
            p50=middle if users else None,
            p95=high if users else None,
        )


def told(models: Models, figures: LiveFigures) -> Answer:
    """The last minute, and the models as they are now."""
    served = list(_served(models))
    workers = {id(one.worker): one.worker for one in served}.values()
    return Answer(
        figures.now(), sum(len(one.waiting) for one in workers), sum(one.flying for one in workers),
        tuple(_model(one.edition) for one in served),
    )  # fmt: skip


def _served(models: Models) -> Iterator[AsyncRecommender]:
    for name in models.names:
        with suppress(UnknownModel):  # unloaded meanwhile
            yield models.named(name)


def _model(edition: Edition) -> ModelFigures:
    recommender = edition.recommender
    return ModelFigures(
        edition.model, edition.version, edition.catalog, len(recommender.catalog.item_ids),
        recommender.verification.mode, recommender.scoring,
    )  # fmt: skip
