"""Every counter and timer of text generation."""

from dataclasses import dataclass, fields

from ..runtime.timers import Timers
from .types import Text


@dataclass(eq=False)
class GenerationStats(Timers):
    """Sums over all texts that a generator has written; `merge` adds another's."""

    texts: int = 0
    tokens: int = 0  # written, end tokens included
    target_calls: int = 0  # summed over texts
    drafted: int = 0
    accepted: int = 0
    target_seconds: float = 0.0  # inside the engine
    retrieval_seconds: float = 0.0  # drafting from pools
    verification_seconds: float = 0.0
    cache_seconds: float = 0.0  # compacting caches to what passed
    round_seconds: float = 0.0  # of all rounds: the above, and the host's work between them
    total_seconds: float = 0.0

    def count(self, text: Text) -> None:
        """Add one text."""
        self.texts += 1
        self.tokens += len(text.tokens)
        self.target_calls += text.stats.target_calls
        self.drafted += text.stats.drafted
        self.accepted += text.stats.accepted

    def merge(self, other: "GenerationStats") -> None:
        """Add another's."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def tokens_per_call(self) -> float:
        """Tokens written in one call of the target, on average over texts' calls."""
        return self.tokens / max(self.target_calls, 1)

    @property
    def other_seconds(self) -> float:
        """Seconds outside the engine, retrieval, verification and caches."""
        known = self.target_seconds + self.retrieval_seconds + self.verification_seconds + self.cache_seconds
        return self.total_seconds - known
