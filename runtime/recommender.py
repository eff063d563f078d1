"""The public face: histories in, ranked items out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path
from threading import Lock

from ..catalog import checks
from ..catalog.bounds import LARGEST
from ..catalog.errors import EngineError, HistoryError
from ..catalog.items import Catalog
from ..engines.bundle.items import Bundle
from .answers import answered, failure
from .arguments import (
    checked_batching,
    checked_verification,
    listed_histories,
    listed_requests,
)
from .batch import BatchSearch
from .chosen import Chosen
from .encoding import RequestEncoder, batched, check_k
from .flight import Flight
from .loaded import Loaded
from .options import Batching, Drafting, EngineChoice, Verification
from .planning.kept import Memory
from .planning.policy import FixedPlanning, Planning
from .room import Room
from .search.filters import ItemFilter
from .stats import DecodeStats
from .types import DrafterKind, Mode, Recommendation, Request, RequestFailure, Round, ScoringKind


class Recommender:
    """Top-K items by the target's beam search over the item trie, drafted ahead where that pays.

    Safe to share between threads: every call works on caches of its own. `stats` sums what all calls did.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        planning: Planning,
        verification: Verification | Mode | None = None,
        batching: Batching | int | None = None,
        reuse: bool = True,
        memory: Memory | None = None,
        chosen: Chosen | None = None,
    ) -> None:
        """planning: how much to draft; memory: of it; chosen: what this was opened with; the rest as of `open`."""
        self.verification = checked_verification(verification)
        self.catalog, self.trie = loaded.catalog, loaded.trie
        self.max_k = None if loaded.max_k is None else checks.whole_number(loaded.max_k, "max_k")
        batching = checked_batching(batching)
        self.batch_size, self._limit = batching.size, batching.memory
        self.stats, self.planning = DecodeStats(self.trie.length), planning
        self.encoder = RequestEncoder(loaded.catalog, loaded.trie, loaded.prompts, self.max_k)
        filters, reuse = self.encoder.filters, checks.flag(reuse, "reuse")
        self._search = BatchSearch(loaded, self.verification, filters, reuse=reuse, room=self._room_of(loaded))
        self._engine, self._lock, self._memory, self._chosen = loaded.engine, Lock(), memory, chosen
        self._loaded = loaded

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        *,
        engine: EngineChoice | str | None = None,
        drafting: Drafting | DrafterKind | None = None,
        verification: Verification | Mode | None = None,
        batching: Batching | int | None = None,
    ) -> "Recommender":
        """Open a bundle's engines.

        engine: which, and with how many threads (a name alone: with all processors; default: the bundle's default
        engine). drafting: what drafts and how much (a drafter alone, such as "none": as much as pays; default: by what
        there is). verification: a mode, with settings of its own or without (default: strict). batching: requests in
        one call. Raises `BundleError`, `EngineError`, `PoolError` or `OptionError` with the remedy.
        """
        return cls.of(Chosen.of(bundle, engine=engine, drafting=drafting, verification=verification, batching=batching))

    @classmethod
    def of(cls, chosen: Chosen) -> "Recommender":
        """Load the engines that were chosen; see `open`."""
        return cls(
            chosen.loaded(), planning=chosen.planning, verification=chosen.verification, batching=chosen.batching,
            reuse=chosen.drafting.reuse, memory=chosen.memory, chosen=chosen,
        )  # fmt: skip

    @property
    def scoring(self) -> ScoringKind:
        """How children are scored."""
        return self._search.scoring.kind

    def variant(self, planning: Planning, batch_size: int) -> "Recommender":
        """The same engines with another way to draft, and statistics of its own."""
        other = copy(self)
        other.planning, other.batch_size, other.stats = planning, batch_size, DecodeStats(self.trie.length)
        other._lock = Lock()
        other._memory = self._memory if planning is self.planning else None
        return other

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""
        return LARGEST if self._chosen is None else self._chosen.bundle.manifest.target.vocabulary

    def verifying(self, verification: Verification) -> "Recommender":
        """The same engines, verified otherwise, with statistics of its own.

        Raises `OptionError` for what cannot be combined, or these engines do not score.
        """
        other = self.variant(self.planning, self.batch_size)
        if self._chosen is None:
            other.verification = verification
        else:
            chosen = self._chosen.verifying(verification)
            other.verification, other.planning, other._memory = chosen.verification, chosen.planning, chosen.memory
            other._chosen = chosen
        other._search = self._search.verifying(other.verification, other._room_of(self._loaded))
        return other

    def with_catalog(self, catalog: Catalog) -> "Recommender":
        """The same engines for another catalog, with statistics of its own; this one stays as it is.

        Raises `CatalogError` for identifiers of tokens that the engines do not know, or longer than they are for.
        """
        loaded = self._loaded.with_catalog(catalog)
        other = self.variant(self.planning.for_trie(loaded.trie), self.batch_size)
        other.catalog, other.trie, other._loaded = catalog, loaded.trie, loaded
        other.encoder = RequestEncoder(catalog, loaded.trie, loaded.prompts, self.max_k)
        other.stats = DecodeStats(loaded.trie.length)
        other._search = self._search.over(loaded, other.encoder.filters, other._room_of(loaded))
        other._chosen = None if self._chosen is None else self._chosen.with_items(catalog, loaded.trie)
        other._memory = None
        return other

    def keep(self) -> str:
        """Keep what was learned of drafts for the next process, if that was asked for (`Drafting.keep`).

        It is done now and then while serving; at the end, this keeps the rest. Returns what went wrong, if anything
        did: it is no error, as what is not kept is learned anew.
        """
        return "" if self._memory is None else self._memory.keep()

    def recommend(
        self,
        histories: Iterable[Iterable[str | int]],
        k: int = 20,
        *,
        users: Iterable[str | int | None] | None = None,
        item_filter: ItemFilter | None = None,
        exclude_history: bool = False,
    ) -> list[Recommendation]:
        """The k best items for every history (item ids, oldest first), in the histories' order.

        An id is text or, as in history files, a whole number, which counts as its digits. users: whose histories they
        are; where sampling, a user's draw depends on the seed and on this name (default: the history itself), and a
        pool may know the user's group. item_filter: what may be recommended; exclude_history: nothing the history
        holds. Fewer than k only where no more are allowed, see `Recommendation.available`. Raises `HistoryError` for a
        history that has no known item, `RequestError`, once all others are done, for one that the engine gives no
        numbers for, and `OptionError` for arguments of another kind; use `encode` and `run` to set such histories
        aside, or to ask different things of different requests.
        """
        check_k(k, self.max_k)
        each, names = listed_histories(histories, users)
        requests = []
        for number, (history, user) in enumerate(zip(each, names, strict=True)):
            try:
                request = self.encode(history, user=user, item_filter=item_filter, exclude_history=exclude_history)
            except HistoryError as error:
                raise HistoryError(f"Of {len(each)} histories, number {number} (from 0): {error}") from error
            requests.append(request)
        return answered(self.run(requests, k))

    def encode(
        self,
        history: Iterable[str | int],
        *,
        k: int | None = None,
        user: str | int | None = None,
        item_filter: ItemFilter | None = None,
        exclude_history: bool = False,
    ) -> Request:
        """One history as a prompt, with what its user asks for; see `recommend`.

        k: items wanted (default: what `run` is asked for). Items that the catalog lacks are dropped and counted.
        """
        return self.encoder.encode(history, k=k, user=user, item_filter=item_filter, exclude_history=exclude_history)

    def run(
        self, requests: Iterable[Request], k: int = 20, *, progress: Callable[[int], None] = lambda done: None
    ) -> list[Recommendation | RequestFailure]:
        """As `recommend`, for encoded requests: each one's answer or failure, in their order.

        `progress` is told how many are done, after every batch.
        """
        checks.function(progress, "progress")
        results: dict[int, Recommendation | RequestFailure] = {}
        for batch in self.batches(requests, k):
            results |= batch
            progress(len(results))
        return [results[number] for number in range(len(results))]

    def batches(self, requests: Iterable[Request], k: int = 20) -> Iterator[dict[int, Recommendation | RequestFailure]]:
        """As `run`, batch by batch as they are done: requests of about the same length, by their numbers."""
        k, requests = check_k(k, self.max_k), listed_requests(requests, self.trie)
        for chosen in batched(requests, self.batch_size):
            answers: dict[int, Recommendation | RequestFailure] = {}
            for part in self._parts([requests[i] for i in chosen], k):
                answers |= self._answers([chosen[place] for place in part], requests, k)
            yield answers

    @property
    def _room(self) -> Room | None:
        return self._search.room

    def _room_of(self, loaded: Loaded) -> Room | None:
        """What its searches may take of memory; None: what they do."""
        if self._limit is None:
            return None
        shape = self.planning.shape if isinstance(self.planning, FixedPlanning) else None
        bound = shape is not None and not self.verification.lossless
        return Room(self._limit, loaded, loaded.trie.length * shape.width * shape.length if bound and shape else 0)

    def _parts(self, requests: Sequence[Request], k: int) -> list[list[int]]:
        """A batch's requests by their places: all at a time, where memory holds them."""
        return [list(range(len(requests)))] if self._room is None else self._room.parts(requests, k)

    def _answers(
        self, numbers: list[int], requests: Sequence[Request], k: int
    ) -> dict[int, Recommendation | RequestFailure]:
        """Some requests' answers, from one search."""
        first = requests[numbers[0]]
        if len(numbers) == 1 and (reason := self.too_large(first, k)):
            return {numbers[0]: RequestFailure(numbers[0], first.user, self._engine, reason)}
        stats = DecodeStats(self.trie.length, log=[])
        found = self._search.run([requests[i] for i in numbers], k, self.planning, stats)
        with self._lock:
            self.stats.merge(stats)
        if self._memory is not None:
            self._memory.now_and_then()
        return {
            i: failure(i, requests[i].user, self._engine) if answer is None else answer
            for i, answer in zip(numbers, found, strict=True)
        }

    def flight(self, requests: Iterable[Request], k: int = 20) -> Flight:
        """Requests about to begin, for hosts that let others join between rounds; `tally` what it counts."""
        k, each = check_k(k, self.max_k), listed_requests(requests, self.trie)
        return self._search.flight(each, k, self.planning, DecodeStats(self.trie.length, log=[]))

    def fitting(self, requests: Sequence[Request], k: int = 20) -> int:
        """How many of the first requests may share a flight, as memory has it; one, where it does not hold any."""
        return len(requests) if self._room is None else self._room.first(requests, k)

    def too_large(self, request: Request, k: int = 20) -> str | None:
        """Why memory does not suffice for a request alone; None where it does."""
        return None if self._room is None else self._room.why_not(request, k)

    def tally(self, flight: Flight) -> DecodeStats:
        """Add what a flight has counted since the last time, and return it."""
        share = flight.stats.taken()
        with self._lock:
            self.stats.merge(share)
        if self._memory is not None:
            self._memory.now_and_then()
        return share

    def unanswered(self, request: Request) -> EngineError:
        """Why a request has no answer."""
        return EngineError(failure(0, request.user, self._engine).reason)

    def trace(self, request: Request, k: int = 20) -> tuple[Recommendation, list[Round]]:
        """One request's recommendation and every round of its search (request 0 of a batch of one).

        Raises `RequestError` as `recommend` does.
        """
        k, (request,) = check_k(k, self.max_k), listed_requests([request], self.trie)
        rounds: list[Round] = []
        result = self._search.run([request], k, self.planning, DecodeStats(self.trie.length), rounds)[0]
        return answered([failure(0, request.user, self._engine) if result is None else result])[0], rounds
