"""Requests that share calls, from their prompts to their lists; between rounds others may join and some may leave."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from ..catalog.hashing import UInt64
from .answers import ranked_items, recommendation
from .drafting.drafter import Drafter
from .loaded import Loaded
from .planning.policy import Planning
from .search.evaluator import TreeEvaluator
from .search.filters import FilterCompiler
from .search.nodes import EvaluatedNodes
from .search.noise import SAMPLE, Noise
from .search.trie_view import TrieView
from .search.verify import Verifier
from .session import Session
from .stats import DecodeStats
from .types import CompiledFilter, Hypotheses, Int64, Recommendation, Request, RequestStats, Round


@dataclass(frozen=True, eq=False)
class Assembled:
    """The collaborators of a flight."""

    filters: list[CompiledFilter | None]  # of every request
    view: TrieView
    noise: Noise
    believed: EvaluatedNodes  # by the draft
    target: TreeEvaluator
    drafter: Drafter
    verifier: Verifier


@dataclass(frozen=True)
class Boarding:
    """What all flights of a search have in common."""

    loaded: Loaded
    filters: FilterCompiler
    seed: int  # of requests that have none of their own
    sampled: bool
    reuse: bool


@final
class Flight:
    """Up to as many requests as share a call, each in a seat (its number). Not to be shared between threads."""

    def __init__(
        self, boarding: Boarding, parts: Assembled, requests: Sequence[Request], k: int, planning: Planning,
        stats: DecodeStats, rounds: list[Round] | None = None,
    ) -> None:  # fmt: skip
        """k: of requests that ask for no number of their own; parts: for these requests."""
        self.stats = stats  # of all its requests
        self._common, self._parts, self._k = boarding, parts, k
        self._requests, self._filters = list(requests), list(parts.filters)
        self._session = Session(
            parts.target, parts.drafter, parts.verifier, planning, parts.view, stats, reuse=boarding.reuse,
            rounds=rounds,
        )  # fmt: skip
        self._session.begin(*self._tickets(0))

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def running(self) -> bool:
        """Whether there is a round to come."""
        return self._session.running

    @property
    def landed(self) -> Int64:
        """Seats of all that need no further round, those without an answer included."""
        return np.flatnonzero(~self._session.frontier.active)

    def round(self) -> None:
        """Draft, verify, advance: all requests go on as far as they come."""
        self._session.round()

    def give_up(self, seats: Int64) -> None:
        """Go no further with some requests."""
        self._session.give_up(seats)

    def reseat(self, kept: Int64, requests: Sequence[Request]) -> None:
        """Go on with the requests in the seats kept, which are 0, 1, ... from now on, and behind them with others.

        All others are done with: their calls and nodes are counted.
        """
        parts = self._parts
        gone = np.ones(len(self), bool)
        gone[kept] = False
        count(parts, self.stats, np.flatnonzero(gone))
        masks = compiled(self._common.filters, requests)
        self._requests = [self._requests[seat] for seat in kept.tolist()] + list(requests)
        self._filters = [self._filters[seat] for seat in kept.tolist()] + masks
        parts.view.reseat(kept, masks)
        parts.noise.reseat(kept, seeds(requests, self._common.seed), keys(requests))
        parts.target.reseat(kept, [request.prompt for request in requests])
        parts.drafter.reseat(kept, requests)
        self._session.reseat(kept, *self._tickets(len(kept)))

    def end(self) -> None:
        """All are done with: the rest is counted."""
        self._session.end()
        count(self._parts, self.stats, np.arange(len(self)))

    def answers(self, seats: Int64) -> list[Recommendation | None]:
        """The lists of requests that have landed; None where the target's scores were no numbers."""
        target, loaded, finished = self._parts.target, self._common.loaded, self._session.frontier.finished
        requests = [self._requests[seat] for seat in seats.tolist()]
        filters = [self._filters[seat] for seat in seats.tolist()]
        wanted = self._wanted(requests)
        counts = (each[seats].tolist() for each in (target.calls, self._parts.drafter.calls, target.evaluated))
        leaves = Hypotheses(finished.nodes[seats], finished.scores[seats], finished.keys[seats])
        found = ranked_items(loaded.trie, leaves, wanted, filters)
        each = zip(requests, found, wanted.tolist(), filters, zip(*counts, strict=True), strict=True)
        failed = set(target.nodes.failed.tolist())
        return [
            None if seat in failed
            else recommendation(loaded.catalog, request, ranked, most, allowed, RequestStats(*cost))
            for seat, (request, ranked, most, allowed, cost) in zip(seats.tolist(), each, strict=True)
        ]  # fmt: skip

    def _wanted(self, requests: Sequence[Request]) -> Int64:
        return np.array([request.k or self._k for request in requests], np.int64)

    def _tickets(self, first: int) -> tuple[Int64, np.ndarray]:
        """What the requests from a seat on begin with: the lists' widths, and what their roots are ranked by."""
        seats = np.arange(first, len(self))
        width = np.minimum(self._wanted(self._requests[first:]), self._parts.view.leaves(len(self))[first:])
        sampled = self._common.sampled
        return width, self._parts.noise.gumbel(seats, seats * 0, SAMPLE) if sampled else np.zeros(len(seats))


def compiled(filters: FilterCompiler, requests: Sequence[Request]) -> list[CompiledFilter | None]:
    """Every request's masks, made when its flight begins: those of all that wait would be large."""
    return [filters.without(request.filter, request.excluded) for request in requests]


def keys(requests: Sequence[Request]) -> UInt64:
    """[B] of the requests' users."""
    return np.array([request.key for request in requests], np.uint64)


def seeds(requests: Sequence[Request], otherwise: int) -> UInt64:
    """[B] of the requests' draws."""
    own = [otherwise if request.seed is None else request.seed for request in requests]
    return np.array([seed % 2**64 for seed in own], np.uint64)


def count(parts: Assembled, stats: DecodeStats, seats: Int64) -> None:
    """Add what some requests cost."""
    stats.requests += len(seats)
    stats.target_calls += int(parts.target.calls[seats].sum())
    stats.draft_calls += int(parts.drafter.calls[seats].sum())
    stats.nodes_evaluated += int(parts.target.evaluated[seats].sum())
    stats.failed_drafts += int(np.isin(parts.believed.failed, seats).sum())
