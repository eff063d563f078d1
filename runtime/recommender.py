"""The public face: histories in, ranked items out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np

from ..catalog.errors import HistoryError
from ..catalog.items import Catalog
from ..catalog.prompt import PromptEncoder
from ..catalog.trie import ItemTrie
from ..engines.base import Engine
from ..engines.bundle import Bundle
from ..engines.registry import available_threads, default_engine, load_engine
from .draft import Drafter, ModelDrafter, NoDrafter
from .evaluator import TreeEvaluator
from .prefix import SharedPrefix
from .session import Session
from .stats import DecodeStats
from .types import DraftShape, Float64, Int64, Recommendation, RecommendedItem, Request, RequestStats


class Recommender:
    """Top-K items by the target's beam search over the item trie, drafted ahead by the draft.

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
        shape: DraftShape | None = None,
        batch_size: int = 8,
        reuse: bool = True,
    ) -> None:
        self._shape, self._reuse, self._lock = shape or DraftShape(), reuse, Lock()
        if min(batch_size, self._shape.width, self._shape.length) < 1:
            raise ValueError(f"got batch_size {batch_size} and {self._shape}; expected at least 1 of each")
        self.catalog, self.trie, self.batch_size = catalog, trie, batch_size
        self.stats = DecodeStats(trie.length)
        shared = np.array(prompts.spec.prefix_ids, np.int64)
        self._prompts, self._target = prompts, SharedPrefix(target, shared)
        self._draft = None if draft is None else SharedPrefix(draft, shared)

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        *,
        engine: str | None = None,
        drafter: Literal["model", "none"] | None = None,
        shape: DraftShape | None = None,
        batch_size: int = 8,
        threads: int | None = None,
        reuse: bool = True,
    ) -> "Recommender":
        """Open a bundle's engines.

        shape: how much to draft (default: 40 nodes at each of 3 depths). batch_size: requests in one call.
        engine: a name that `specrec inspect` lists (default: the only one built). threads: of each
        engine (default: all processors of this process). drafter: default "model" if the bundle has one.
        reuse: False discards a whole round's evaluations at the first missing node, as AtSpeed does; for
        comparisons. Raises `BundleError` or
        `EngineError` with the remedy.
        """
        bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        drafter = drafter or ("model" if bundle.manifest.draft else "none")
        if drafter not in ("model", "none"):
            raise ValueError(f"got the drafter {drafter!r}; expected 'model' or 'none'")
        if threads is not None and threads < 1:
            raise ValueError(f"got {threads} threads; expected at least 1")
        engine, threads = engine or default_engine(bundle), threads or available_threads()
        catalog, trie = bundle.catalog(), bundle.trie()
        target = load_engine(bundle, "target", engine, threads=threads)
        draft = load_engine(bundle, "draft", engine, threads=threads) if drafter == "model" else None
        prompts = bundle.prompts(trie)
        return cls(catalog, trie, prompts, target, draft, shape=shape, batch_size=batch_size, reuse=reuse)

    def recommend(self, histories: Sequence[Sequence[str]], k: int = 20) -> list[Recommendation]:
        """The k best items for every history (item ids, oldest first), in the histories' order.

        Fewer than k only where the catalog has fewer. Raises `HistoryError` for a history that has no
        known item; use `encode` and `run` to set such histories aside one by one.
        """
        requests = []
        for number, history in enumerate(histories):
            try:
                requests.append(self.encode(history))
            except HistoryError as error:
                raise HistoryError(f"Of {len(histories)} histories, number {number} (from 0): {error}") from error
        return self.run(requests, k)

    def encode(self, history: Sequence[str]) -> Request:
        """One history as a prompt; items that the catalog lacks are dropped and counted."""
        if isinstance(history, str):
            raise HistoryError(f"A history is a list of item ids; got the text {history!r}. Put it into a list.")
        position = self.catalog.position
        known = [position[item] for item in history if item in position]
        if not known:
            sample = ", ".join(repr(item) for item in history[:3])
            reason = (
                f"none of its {len(history)} items is in the catalog (e.g. {sample})" if len(history) else "it is empty"
            )
            raise HistoryError(f"A history cannot be used: {reason}. Expected item ids that are keys of the catalog.")
        prompt = self._prompts.encode(known)
        return Request(prompt.ids, len(history) - len(known), prompt.shortened)

    def run(
        self, requests: Sequence[Request], k: int = 20, *, progress: Callable[[int], None] = lambda done: None
    ) -> list[Recommendation]:
        """As `recommend`, for encoded requests. They are batched by length; the order is kept.

        `progress` is told how many are done, after every batch.
        """
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1")
        order = np.argsort([len(request.prompt) for request in requests], kind="stable").tolist()
        results: list[Recommendation | None] = [None] * len(requests)
        stats = DecodeStats(self.trie.length)
        with stats.timed("total"):
            for start in range(0, len(order), self.batch_size):
                chosen = order[start : start + self.batch_size]
                batch = self._batch([requests[i] for i in chosen], k, stats)
                for i, result in zip(chosen, batch, strict=True):
                    results[i] = result
                progress(start + len(chosen))
        with self._lock:
            self.stats.merge(stats)
        return [result for result in results if result is not None]

    def _batch(self, requests: list[Request], k: int, stats: DecodeStats) -> list[Recommendation]:
        prompts = [request.prompt for request in requests]
        target = TreeEvaluator(self._target, self.trie, prompts, stats, "target")
        drafter: Drafter = NoDrafter(len(prompts))
        if self._draft is not None:
            evaluator = TreeEvaluator(self._draft, self.trie, prompts, stats, "draft")
            drafter = ModelDrafter(evaluator, self.trie, self._shape)
        session = Session(target, drafter, self.trie, stats, reuse=self._reuse)
        frontier = session.run(len(prompts), min(k, self.trie.identifiers))
        stats.requests += len(requests)
        stats.target_calls += int(target.calls.sum())
        stats.draft_calls += int(drafter.calls.sum())
        stats.nodes_evaluated += int(target.evaluated.sum())
        counters = zip(target.calls.tolist(), drafter.calls.tolist(), target.evaluated.tolist(), strict=True)
        return [
            Recommendation(
                self._items(nodes, scores, k), RequestStats(*counts), request.unknown_items, request.shortened
            )
            for request, nodes, scores, counts in zip(requests, frontier.nodes, frontier.scores, counters, strict=True)
        ]

    def _items(self, leaves: Int64, scores: Float64, k: int) -> tuple[RecommendedItem, ...]:
        """Ranked leaves [W] as items: all items of each in catalog order, cut at k."""
        catalog = self.catalog
        which, item = self.trie.items_of(leaves[leaves >= 0])
        pairs = zip(item[:k].tolist(), scores[which[:k]].tolist(), strict=True)
        return tuple(
            RecommendedItem(catalog.item_ids[i], catalog.titles[i], score, catalog.identifiers[i]) for i, score in pairs
        )
