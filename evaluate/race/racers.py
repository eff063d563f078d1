"""The contestants: each serves batches of requests, gives its lists, and says where its time went."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, final

from ...catalog.trie import ItemTrie
from ...runtime import Recommendation, Recommender
from ...runtime.answers import answered
from ...runtime.stats import DecodeStats
from ...runtime.types import Request
from .beams import BeamSeconds, ReorderedBeams

Ranked = list[tuple[int, float]]  # (item by catalog order, score), best first


class Spent(NamedTuple):
    """What one batch took: counts are summed over its requests."""

    target_calls: int
    draft_calls: int
    nodes: int  # rows of log-probabilities behind the prompt's that the target worked out, or that it could have
    prompt: float  # seconds in calls of the target that bring the prompts
    target: float  # in its other calls, and its caches
    draft: float  # in the draft's calls, and in guessing from a pool
    planning: float
    total: float

    @property
    def selection(self) -> float:
        """Seconds in everything else: the trie, choosing beams, putting calls together."""
        return self.total - self.prompt - self.target - self.draft - self.planning


class Racer(ABC):
    """One way to serve requests."""

    def ready(self, groups: Sequence[Sequence[Request]], k: int) -> "Racer":
        """What serves these batches, all of one size, with nothing counted yet; not timed."""
        return self

    @abstractmethod
    def serve(self, group: Sequence[Request], k: int) -> object:
        """Answer a batch. This is what is timed."""

    @abstractmethod
    def lists(self, answer: object, k: int) -> list[Ranked] | None:
        """An answer of `serve` as every request's k items; None: this contestant finds none."""

    @property
    @abstractmethod
    def spent(self) -> Spent:
        """What the last batch took."""


@final
class LoopRacer(Racer):
    """A recommender."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender

    def ready(self, groups: Sequence[Sequence[Request]], k: int) -> "LoopRacer":
        return LoopRacer(self._recommender.variant(self._recommender.planning, len(groups[0])))

    def serve(self, group: Sequence[Request], k: int) -> list[Recommendation]:
        self._recommender.stats = DecodeStats(self._recommender.trie.length)
        return answered(self._recommender.run(group, k))

    def lists(self, answer: object, k: int) -> list[Ranked]:
        assert isinstance(answer, list)
        position = self._recommender.catalog.position
        return [[(position[entry.item], entry.score) for entry in found.items] for found in answer]

    @property
    def spent(self) -> Spent:
        stats = self._recommender.stats
        return Spent(
            stats.target_calls, stats.draft_calls, stats.nodes_evaluated, stats.prompt_seconds,
            stats.target_seconds - stats.prompt_seconds, stats.draft_seconds + stats.pool_seconds,
            stats.planning_seconds, stats.total_seconds,
        )  # fmt: skip


def items_of(trie: ItemTrie, leaves: Sequence[tuple[int, float]], k: int) -> Ranked:
    """The k best items of ranked leaves, of which several may share one."""
    offset = trie.item_offset
    return [(item, score) for leaf, score in leaves for item in trie.item[offset[leaf] : offset[leaf + 1]].tolist()][:k]


@final
class BeamRacer(Racer):
    """Beam search with reordered caches."""

    def __init__(self, search: ReorderedBeams, trie: ItemTrie) -> None:
        self._search, self._trie, self._spent = search, trie, BeamSeconds()

    def serve(self, group: Sequence[Request], k: int) -> list[list[tuple[int, float]]]:
        self._spent = BeamSeconds()
        return self._search([request.prompt for request in group], k, self._spent)

    def lists(self, answer: object, k: int) -> list[Ranked]:
        assert isinstance(answer, list)
        return [items_of(self._trie, each, k) for each in answer]

    @property
    def spent(self) -> Spent:
        own = self._spent
        seconds = own.prompt_seconds, own.target_seconds, 0.0, 0.0, own.total_seconds
        return Spent(own.calls, 0, own.nodes, *seconds)
