"""The one place that takes the time."""

from time import perf_counter
from typing import final


class Timers:
    """What has fields named <what>_seconds; statistics are of this kind."""

    def timed(self, what: str) -> "Timed":
        """Add the block's seconds to `<what>_seconds`."""
        return Timed(self, f"{what}_seconds")


@final
class Timed:
    """A block whose seconds are added to a field. A class, as entering a generator takes three times as long."""

    def __init__(self, timers: Timers, name: str) -> None:
        self._timers, self._name = timers, name
        self.seconds = 0.0  # once the block is done

    def __enter__(self) -> "Timed":
        self._start = perf_counter()
        return self

    def __exit__(self, *raised: object) -> None:
        self.seconds = perf_counter() - self._start
        setattr(self._timers, self._name, getattr(self._timers, self._name) + self.seconds)
