"""Every counter and every timer of the loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from time import perf_counter

import numpy as np

from .types import Int64, Verdict


@dataclass(eq=False)
class DecodeStats:
    """Counters of all requests that a recommender has served; `merge` adds another's."""

    length: int  # L
    requests: int = 0
    target_calls: int = 0  # summed over requests
    draft_calls: int = 0
    nodes_evaluated: int = 0
    target_seconds: float = 0.0  # inside the target engine
    draft_seconds: float = 0.0
    total_seconds: float = 0.0  # inside `Recommender.recommend`, engines included
    needed: Int64 = field(init=False)  # [L] frontier nodes by depth; see `Verdict`
    found: Int64 = field(init=False)
    levels: Int64 = field(init=False)
    levels_found: Int64 = field(init=False)

    def __post_init__(self) -> None:
        self.needed, self.found, self.levels, self.levels_found = np.zeros((4, self.length), np.int64)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the block's seconds to `<what>_seconds`."""
        start = perf_counter()
        try:
            yield
        finally:
            name = f"{what}_seconds"
            setattr(self, name, getattr(self, name) + perf_counter() - start)

    def merge(self, other: "DecodeStats") -> None:
        """Add another's counters and seconds."""
        for name in (counter.name for counter in fields(self) if counter.name != "length"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def count(self, verdict: Verdict) -> None:
        """Add what one round's verdict found."""
        self.needed += verdict.needed
        self.found += verdict.found
        self.levels += verdict.levels
        self.levels_found += verdict.levels_found

    @property
    def rejections(self) -> int:
        """Frontier nodes that had not been evaluated when they were reached (0 if all guesses were right)."""
        return int((self.needed - self.found).sum())

    @property
    def host_seconds(self) -> float:
        """Seconds outside the engines."""
        return self.total_seconds - self.target_seconds - self.draft_seconds

    def acceptance(self) -> list[float | None]:
        """Share of needed nodes that were evaluated ahead of need, at depths 1 to L - 1; None where none was needed."""
        pairs = zip(self.found[1:].tolist(), self.needed[1:].tolist(), strict=True)
        return [found / needed if needed else None for found, needed in pairs]
