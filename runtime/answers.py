"""What a search found, as the lists that users get; and what they get where it found no numbers."""

from collections.abc import Sequence
from typing import Any, TypeVar

from ..catalog.errors import EngineError
from ..catalog.items import Catalog
from ..catalog.trie import ItemTrie
from .types import (
    Bool,
    CompiledFilter,
    Float64,
    Int64,
    Recommendation,
    RecommendedItem,
    Request,
    RequestFailure,
    RequestStats,
)

T = TypeVar("T")


class RequestError(EngineError):
    """Some requests could not be answered. `results` holds all of them: the others' answers, and every failure."""

    def __init__(self, message: str, results: Sequence[Any]) -> None:
        super().__init__(message)
        self.results = list(results)


def failure(number: int, user: str | None, engine: str) -> RequestFailure:
    """Of a request for which the target's engine (its name and precision) gave what is no log-probability."""
    reason = (
        f"the target's engine {engine} gives NaN or infinity in place of a log-probability: its activations overflow, "
        "or its weights are damaged. Use another engine, or build this one again (specbeam build-engine BUNDLE "
        "--overwrite), in bf16 or fp32 where it is fp16 (--precision)"
    )
    return RequestFailure(number, user, engine, reason)


def answered(results: Sequence[T | RequestFailure]) -> list[T]:
    """The answers of all requests. Raises `RequestError` where any has failed."""
    failed = [result for result in results if isinstance(result, RequestFailure)]
    if failed:
        first = failed[0]
        user = "" if first.user is None else f", of the user {first.user!r}"
        raise RequestError(
            f"{len(failed)} of {len(results)} requests could not be answered. The first is number {first.number} (from "
            f"0{user}): {first.reason}",
            results,
        )
    return [result for result in results if not isinstance(result, RequestFailure)]


def recommendation(
    catalog: Catalog,
    trie: ItemTrie,
    request: Request,
    found: tuple[Int64, Float64],
    k: int,
    allowed: CompiledFilter | None,
    stats: RequestStats,
) -> Recommendation:
    """A request's answer: ranked leaves [W] (-1: none) and their scores [W] as at most k items."""
    items = _items(catalog, trie, *found, k, None if allowed is None else allowed.items)
    available = len(trie.item) if allowed is None else allowed.count
    return Recommendation(
        items, stats, request.unknown_items, request.shortened, available if available < k else None
    )  # fmt: skip


def _items(
    catalog: Catalog, trie: ItemTrie, leaves: Int64, scores: Float64, k: int, allowed: Bool | None
) -> tuple[RecommendedItem, ...]:
    """All allowed items of each leaf in catalog order, cut at k."""
    which, item = trie.items_of(leaves[leaves >= 0])
    if allowed is not None:
        which, item = which[allowed[item]], item[allowed[item]]
    pairs = zip(item[:k].tolist(), scores[which[:k]].tolist(), strict=True)
    return tuple(
        RecommendedItem(catalog.item_ids[i], catalog.titles[i], score, catalog.identifiers[i]) for i, score in pairs
    )
