"""The public face: histories in, ranked items out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np

from ..catalog import checks
from ..catalog.errors import HistoryError, OptionError
from ..catalog.hashing import text_key
from ..catalog.items import Catalog
from ..catalog.prompts.encoder import PromptEncoder
from ..catalog.trie import ItemTrie
from ..engines.base import Engine
from ..engines.bundle.items import Bundle
from ..engines.registry import (
    chosen_engine,
    chosen_threads,
    load_engine,
    name_and_precision,
)
from ..pools.items.pool import ItemPool
from .answers import answered, failure, recommendation
from .arguments import checked_verification, listed_histories, listed_requests
from .drafting.guesses import Guesses, MixedGuesses, ModelGuesses
from .drafting.retrieval import CatalogPool, PoolGuesses
from .modes import drafter_of, scoring_of, verifier_of
from .options import Verification
from .planning.choose import drafter_for, planning_for
from .planning.policy import Planning
from .search.evaluator import TreeEvaluator
from .search.filters import FilterCompiler, ItemFilter
from .search.nodes import EvaluatedNodes
from .search.noise import SAMPLE, Noise, prefix_hashes
from .search.prefix import SharedPrefix
from .search.trie_view import TrieView
from .session import Session
from .stats import DecodeStats
from .types import (
    Bool,
    DrafterKind,
    DraftShape,
    Recommendation,
    Request,
    RequestFailure,
    RequestStats,
    Round,
    ScoringKind,
)

LONGEST = 2**63 - 1  # list that can be asked for where nobody says another one


class Recommender:
    """Top-K items by the target's beam search over the item trie, drafted ahead where that pays.

    Safe to share between threads: every call works on caches of its own. `stats` sums what all calls did.
    """

    def __init__(
        self,
        catalog: Catalog,
        trie: ItemTrie,
        prompts: PromptEncoder,
        target: Engine,
        draft: Engine | None,
        *,
        planning: Planning,
        pool: CatalogPool | None = None,
        verification: Verification | None = None,
        batch_size: int = 8,
        max_k: int | None = None,
        reuse: bool = True,
        engine: str = "given",
    ) -> None:
        """draft, pool: what drafts are guessed by; planning: how much to draft; max_k: the longest list that a request
        may ask for (default: any); engine: how errors name the target's."""
        self.verification = checked_verification(verification)
        self.catalog, self.trie = catalog, trie
        self.max_k = None if max_k is None else checks.whole_number(max_k, "max_k")
        self.batch_size = checks.whole_number(batch_size, "batch_size")
        self.stats, self.planning = DecodeStats(trie.length), planning
        self._reuse, self._engine, self._lock = checks.flag(reuse, "reuse"), engine, Lock()
        self._scoring = scoring_of(self.verification)
        self._hashes = prefix_hashes(trie)
        self._filters = FilterCompiler(catalog, trie)
        shared = np.array(prompts.spec.prefix_ids, np.int64)
        self._prompts, self._target = prompts, SharedPrefix(target, shared)
        self._draft, self._pool = None if draft is None else SharedPrefix(draft, shared), pool

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        *,
        engine: str | None = None,
        drafter: DrafterKind | None = None,
        pool: str | Path | ItemPool | None = None,
        speculation: Literal["auto", "fixed"] | None = None,
        shape: DraftShape | None = None,
        verification: Verification | None = None,
        batch_size: int = 8,
        threads: int | None = None,
        reuse: bool = True,
    ) -> "Recommender":
        """Open a bundle's engines.

        engine: a name that `specbeam inspect` lists (default: the bundle's default engine). drafter: what drafts are
        guessed by; "retrieval" needs a pool of items (`specbeam build-pool --items`), "both" a draft model, too
        (default: what there is of the two). speculation: "auto" drafts as much as pays, by the engines' measured
        latency and what has been accepted (see `specbeam tune`); "fixed" drafts `shape` (40 nodes at each of 3
        depths) in every round. Default: auto, unless a shape is given or the mode's answer depends on what
        is drafted. batch_size: requests in one call. threads: of each engine (default: all processors of
        this process; at most 1024). reuse: False discards a whole round's evaluations at the first missing node, as
        AtSpeed does; for comparisons. Raises `BundleError`, `EngineError`, `PoolError` or `OptionError` with the
        remedy.
        """
        threads, reuse = chosen_threads(threads), checks.flag(reuse, "reuse")
        batch_size = checks.whole_number(batch_size, "batch_size")  # before engines are loaded
        if shape is not None:
            checks.instance(shape, "shape", DraftShape, "such as DraftShape(40, 3)")
        verification = checked_verification(verification)
        pool = opened_pool(pool)
        bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        if verification.scoring is None and verification.mode != "sampled":
            verification = replace(verification, scoring=bundle.manifest.scoring)
        engine, kind = chosen_engine(bundle, engine), drafter_for(bundle, drafter, has_pool=pool is not None)
        catalog, trie = bundle.items()
        planning = planning_for(
            bundle, engine, trie, verification, threads=threads, drafter=kind, pool=pool, speculation=speculation,
            shape=shape,
        )  # fmt: skip
        target = load_engine(bundle, "target", engine, threads=threads)
        draft = load_engine(bundle, "draft", engine, threads=threads) if kind in ("model", "both") else None
        return cls(
            catalog, trie, bundle.prompts(trie), target, draft, planning=planning,
            pool=None if pool is None else CatalogPool(pool, catalog, trie), verification=verification,
            batch_size=batch_size, max_k=bundle.manifest.max_top_k, reuse=reuse,
            engine=name_and_precision(bundle, "target", engine),
        )  # fmt: skip

    @property
    def scoring(self) -> ScoringKind:
        """How children are scored."""
        return self._scoring.kind

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
        allowed, kept = self._filters.compile(item_filter), np.array(known, np.int64)
        unknown = len(items) - len(known)
        return Request(prompt.ids, kept, user, unknown, prompt.shortened, key, k, allowed, excluded, self.trie)

    def allowed(self, item_filter: ItemFilter | None) -> Bool | None:
        """[I] the items of the catalog that a filter allows; None: all."""
        compiled = self._filters.compile(item_filter)
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
            stats = DecodeStats(self.trie.length, log=self.stats.log)
            with stats.timed("total"):
                answers = self._batch([requests[i] for i in chosen], k, stats)
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
        result = self._batch([request], k, DecodeStats(self.trie.length), rounds)[0]
        return answered([failure(0, request.user, self._engine) if result is None else result])[0], rounds

    def _batch(
        self, requests: list[Request], k: int, stats: DecodeStats, rounds: list[Round] | None = None
    ) -> list[Recommendation | None]:
        """Every request's recommendation; None where the target's scores were no numbers."""
        prompts = [request.prompt for request in requests]
        # Masks of one request only are made for its batch: those of all that wait would be large.
        filters = [self._filters.without(request.filter, request.excluded) for request in requests]
        view = TrieView(self.trie, self._scoring.kind, [None if f is None else f.live for f in filters])
        keys = np.array([request.key for request in requests], np.uint64)
        noise = Noise(self.verification.seed or 0, keys, self._hashes)
        shared = noise if self.verification.mode == "sampled" else None  # draft and target perturb alike
        nodes = EvaluatedNodes(view, self._scoring, shared)
        target = TreeEvaluator(self._target, view, nodes, prompts, stats, "target")
        believed = EvaluatedNodes(view, self._scoring)  # by the draft
        guesses = self._guesses(believed, view, requests, stats)
        verifier = verifier_of(self.verification, view, noise)
        drafter = drafter_of(self.verification, guesses, view, noise, len(requests))
        session = Session(target, drafter, verifier, self.planning, view, stats, reuse=self._reuse, rounds=rounds)
        wanted = np.array([request.k or k for request in requests])
        everyone = np.arange(len(requests))
        root = np.zeros(len(requests)) if shared is None else shared.gumbel(everyone, everyone * 0, SAMPLE)
        frontier = session.run(np.minimum(wanted, view.leaves(len(requests))), root)
        stats.requests += len(requests)
        stats.target_calls += int(target.calls.sum())
        stats.draft_calls += int(drafter.calls.sum())
        stats.nodes_evaluated += int(target.evaluated.sum())
        stats.failed_drafts += len(believed.failed)
        counters = zip(target.calls.tolist(), drafter.calls.tolist(), target.evaluated.tolist(), strict=True)
        found = zip(frontier.finished.nodes, frontier.finished.scores, strict=True)
        answers: list[Recommendation | None] = [
            recommendation(self.catalog, self.trie, request, ranked, int(most), allowed, RequestStats(*counts))
            for request, ranked, most, allowed, counts in zip(requests, found, wanted, filters, counters, strict=True)
        ]
        for number in nodes.failed.tolist():
            answers[number] = None
        return answers

    def _guesses(
        self, nodes: EvaluatedNodes, view: TrieView, requests: Sequence[Request], stats: DecodeStats
    ) -> Guesses | None:
        """What one batch's drafts are guessed by; nodes: where the draft's beliefs are kept."""
        model = None
        if self._draft is not None:
            prompts = [request.prompt for request in requests]
            model = ModelGuesses(TreeEvaluator(self._draft, view, nodes, prompts, stats, "draft"))
        if self._pool is None:
            return model
        pool = PoolGuesses(self._pool, view, self._scoring, requests, stats)
        return pool if model is None else MixedGuesses(model, pool)


def opened_pool(pool: str | Path | ItemPool | None) -> ItemPool | None:
    """A pool by its path, or as it is. Raises `PoolError` where it cannot be used."""
    return pool if pool is None or isinstance(pool, ItemPool) else ItemPool.open(pool)


def check_k(k: int, most: int | None) -> int:
    """Raise `OptionError` for a list's length that cannot be asked for."""
    if most is not None and isinstance(k, int | np.integer) and k > most:
        raise OptionError(
            f"k is {k}, but this bundle serves lists of at most {most} items. Ask for fewer, or export it again with "
            f"--max-top-k {k}."
        )
    return checks.whole_number(k, "k", most=LONGEST)
