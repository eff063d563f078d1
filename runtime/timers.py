"""The one place that takes the time."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Timers:
    """What has fields named <what>_seconds; statistics are of this kind."""

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the block's seconds to `<what>_seconds`."""
        start = perf_counter()
        try:
            yield
        finally:
            name = f"{what}_seconds"
            setattr(self, name, getattr(self, name) + perf_counter() - start)
