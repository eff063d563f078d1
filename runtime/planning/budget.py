"""What may be risked and what may be spent: trying drafts, and planning itself, in shares of what serving takes.

Trying is bounded as in "Conservative Bandits" (Wu et al., ICML 2016): at any time, all that was served may have taken
at most a given share longer than without drafts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple, final

LOAN = 0.25  # of a first batch's time, which may be lost at once
DOSE = 0.008  # share of the time without drafts that may be lost to drafts that were worth nothing
RESERVE = 4.0  # batches' time that gains are remembered for
PATIENCE = 32  # requests until drafts that did not seem to pay are tried again, and then twice as many each time
LONGEST = 256  # so many at most where an earlier process tried them
PLANNING = 0.008  # share of the time of serving that planning may take
FIRST_PLANS = 0.01  # seconds of planning that need not have been earned yet
PLANS = 0.7  # of planning, the part that may be spent before what came of it is looked at


@final
class Account:
    """Milliseconds that may be lost to drafts: every batch adds the share `DOSE` of its own time without drafts."""

    def __init__(self, *, proven: bool = False) -> None:
        """proven: whether it is known already what drafts are worth."""
        self.milliseconds = 0.0
        self._first = RESERVE if proven else LOAN
        self._plain = 0.0  # of the batch that began last

    @property
    def standing(self) -> float:
        """What there is, in times of a batch without drafts."""
        return self._first + (self.milliseconds / self._plain if self._plain else 0.0)

    def resume(self, standing: float) -> None:
        """Begin where another account ended: never with more than a first batch may lose anyway."""
        self._first = min(self._first, standing)

    def served(self, plain: float) -> None:
        """A batch begins that takes so many milliseconds without drafts."""
        self._gain((DOSE + self._first) * plain, plain)
        self._first, self._plain = 0.0, plain

    def affords(self, dose: float) -> bool:
        """Whether drafts that cost so many milliseconds may turn out to be worth nothing."""
        return dose <= self.milliseconds

    def lost(self, milliseconds: float, plain: float) -> None:
        """A batch took so many milliseconds more than without drafts (less: negative)."""
        self._gain(-milliseconds, plain)

    def _gain(self, milliseconds: float, plain: float) -> None:
        """No more is remembered than the reserve."""
        self.milliseconds = min(self.milliseconds + milliseconds, max(self.milliseconds, RESERVE * plain))


class Waiting(NamedTuple):
    """What is left of `Trials` for another process."""

    left: int  # requests until the next one
    wait: int


@dataclass
class Trials:
    """When drafts of one K are tried again, in requests served."""

    served: int = 0
    due: int = 0
    wait: int = PATIENCE

    @classmethod
    def after(cls, earlier: Waiting) -> "Trials":
        """Those of an earlier process, gone on with."""
        return cls(due=min(earlier.left, LONGEST), wait=min(earlier.wait, LONGEST))

    @property
    def waiting(self) -> Waiting:
        return Waiting(max(self.due - self.served, 0), self.wait)

    def start(self) -> None:
        self.due, self.wait = self.served + self.wait, 2 * self.wait


@final
class Effort:
    """Seconds that planning took beside seconds that serving took."""

    def __init__(self) -> None:
        self.planning = self.serving = 0.0

    @property
    def may_look(self) -> bool:
        """Whether there is time to look at what came of a batch."""
        return self.planning <= FIRST_PLANS + PLANNING * self.serving

    @property
    def may_plan(self) -> bool:
        """Whether there is time to plan, and some is left to look at what comes of it."""
        return self.planning <= PLANS * (FIRST_PLANS + PLANNING * self.serving)

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Count what the block takes as planning."""
        start = perf_counter()
        try:
            yield
        finally:
            self.planning += perf_counter() - start
