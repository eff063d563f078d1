"""Who is told what happens: counters, metrics. Told from several threads, and must be quick."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from typing import final

from ..runtime.stats import DecodeStats
from .editions import Edition
from .tickets import Outcome as Outcome


class Observer(ABC):
    """Who is told."""

    @abstractmethod
    def refused(self, model: str) -> None:
        """A request was refused, as too many wait."""

    @abstractmethod
    def ended(self, edition: Edition, outcome: Outcome, waited: float, seconds: float) -> None:
        """A request has ended; waited: seconds in the queue, seconds: from its arrival to its end."""

    @abstractmethod
    def called(self, edition: Edition, batch: int, stats: DecodeStats) -> None:
        """A round of so many requests is done, or (0) the last has landed; stats: its share alone."""


@final
class Nobody(Observer):
    """Nobody wants to know."""

    def refused(self, model: str) -> None:
        pass

    def ended(self, edition: Edition, outcome: Outcome, waited: float, seconds: float) -> None:
        pass

    def called(self, edition: Edition, batch: int, stats: DecodeStats) -> None:
        pass


@final
class Observers(Observer):
    """Several, told one after the other."""

    def __init__(self, *told: Observer) -> None:
        self._told = told

    def refused(self, model: str) -> None:
        for one in self._told:
            one.refused(model)

    def ended(self, edition: Edition, outcome: Outcome, waited: float, seconds: float) -> None:
        for one in self._told:
            one.ended(edition, outcome, waited, seconds)

    def called(self, edition: Edition, batch: int, stats: DecodeStats) -> None:
        for one in self._told:
            one.called(edition, batch, stats)


@final
class Guarded(Observer):
    """Another one, whose faults are logged (`specbeam.serve`), and are nobody's request's."""

    def __init__(self, told: Observer) -> None:
        self._told = told

    def refused(self, model: str) -> None:
        with logged("an observer"):
            self._told.refused(model)

    def ended(self, edition: Edition, outcome: Outcome, waited: float, seconds: float) -> None:
        with logged("an observer"):
            self._told.ended(edition, outcome, waited, seconds)

    def called(self, edition: Edition, batch: int, stats: DecodeStats) -> None:
        with logged("an observer"):
            self._told.called(edition, batch, stats)


@contextmanager
def logged(who: str) -> Iterator[None]:
    """A block of a host's code: what it raises is logged, and goes no further."""
    try:
        yield
    except BaseException:  # SystemExit would end the thread that all others wait for
        getLogger("specbeam.serve").exception("%s failed; what it was told of goes on", who)
