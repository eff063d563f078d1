"""The public face: histories in, ranked items out."""

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np

from ..catalog import checks
from ..catalog.errors import HistoryError, OptionError
from ..catalog.hashing import text_key
from ..engines.bundle.items import Bundle
from .answers import answered, failure
from .arguments import (
    checked_batching,
    checked_drafting,
    checked_engine,
    checked_verification,
    listed_histories,
    listed_requests,
)
from .batch import BatchSearch
from .loaded import Loaded
from .options import Batching, Drafting, EngineChoice, Verification
from .planning.from_options import drafter_for, planning_for
from .planning.policy import Planning
from .search.filters import ItemFilter
from .stats import DecodeStats
from .types import Bool, DrafterKind, Mode, Recommendation, Request, RequestFailure, Round, ScoringKind

LONGEST = 2**63 - 1  # list that can be asked for where nobody says another one


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
    ) -> None:
        """planning: how much to draft; the rest as of `open`."""
        self.verification = checked_verification(verification)
        self.catalog, self.trie = loaded.catalog, loaded.trie
        self.max_k = None if loaded.max_k is None else checks.whole_number(loaded.max_k, "max_k")
        self.batch_size = checked_batching(batching).size
        self.stats, self.planning = DecodeStats(self.trie.length), planning
        self._search = BatchSearch(loaded, self.verification, reuse=checks.flag(reuse, "reuse"))
        self._prompts, self._engine, self._lock = loaded.prompts, loaded.engine, Lock()

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
        choice, drafting = checked_engine(engine), checked_drafting(drafting)
        verification, batching = checked_verification(verification), checked_batching(batching)
        pool = drafting.opened_pool()
        bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        if verification.scoring is None and verification.mode != "sampled":
            verification = replace(verification, scoring=bundle.manifest.scoring)
        name, threads = choice.of(bundle)
        drafter = drafter_for(bundle, drafting.drafter, has_pool=pool is not None)
        drafting, items = replace(drafting, drafter=drafter, pool=pool), bundle.items()
        planning = planning_for(bundle, name, items[1], verification, drafting, threads=threads)
        loaded = Loaded.of(bundle, items, name, drafting, threads=threads)
        return cls(loaded, planning=planning, verification=verification, batching=batching, reuse=drafting.reuse)

    @property
    def scoring(self) -> ScoringKind:
        """How children are scored."""
        return self._search.scoring.kind

    def variant(self, planning: Planning, batch_size: int) -> "Recommender":
        """The same engines with another way to draft, and statistics of its own."""
        other = copy(self)
        other.planning, other.batch_size, other.stats = planning, batch_size, DecodeStats(self.trie.length)
        other._lock = Lock()
        return other

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
        items = checks.history(history)
        if k is not None:
            k = check_k(k, self.max_k)
        if item_filter is not None:
            checks.instance(item_filter, "item_filter", ItemFilter, "such as ItemFilter(deny={'8'})")
        position = self.catalog.position
        known = [position[item] for item in items if item in position]
        if not known:
            sample = ", ".join(repr(item) for item in items[:3])
            reason = f"none of its {len(items)} items is in the catalog (e.g. {sample})" if items else "it is empty"
            raise HistoryError(f"A history cannot be used: {reason}. Expected item ids that are keys of the catalog.")
        prompt = self._prompts.encode(known)
        user = None if user is None else checks.as_id(user, "user")
        key = text_key("\0".join(items) if user is None else user)
        excluded = np.array(known if checks.flag(exclude_history, "exclude_history") else (), np.int64)
        allowed, kept = self._search.filters.compile(item_filter), np.array(known, np.int64)
        unknown = len(items) - len(known)
        return Request(prompt.ids, kept, user, unknown, prompt.shortened, key, k, allowed, excluded, self.trie)

    def allowed(self, item_filter: ItemFilter | None) -> Bool | None:
        """[I] the items of the catalog that a filter allows; None: all."""
        compiled = self._search.filters.compile(item_filter)
        return None if compiled is None else compiled.items

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
        order = np.argsort([len(request.prompt) for request in requests], kind="stable").tolist()
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            stats = DecodeStats(self.trie.length, log=[])
            with stats.timed("total"):
                answers = self._search.run([requests[i] for i in chosen], k, self.planning, stats)
            with self._lock:
                self.stats.merge(stats)
            yield {
                i: failure(i, requests[i].user, self._engine) if answer is None else answer
                for i, answer in zip(chosen, answers, strict=True)
            }

    def trace(self, request: Request, k: int = 20) -> tuple[Recommendation, list[Round]]:
        """One request's recommendation and every round of its search (request 0 of a batch of one).

        Raises `RequestError` as `recommend` does.
        """
        k, (request,) = check_k(k, self.max_k), listed_requests([request], self.trie)
        rounds: list[Round] = []
        result = self._search.run([request], k, self.planning, DecodeStats(self.trie.length), rounds)[0]
        return answered([failure(0, request.user, self._engine) if result is None else result])[0], rounds


def check_k(k: int, most: int | None) -> int:
    """Raise `OptionError` for a list's length that cannot be asked for."""
    if most is not None and isinstance(k, int | np.integer) and k > most:
        raise OptionError(
            f"k is {k}, but this bundle serves lists of at most {most} items. Ask for fewer, or export it again with "
            f"--max-top-k {k}."
        )
    return checks.whole_number(k, "k", most=LONGEST)
