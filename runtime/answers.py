"""What a search found, as the lists that users get; and what they get where it found no numbers."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from ..catalog.errors import EngineError
from ..catalog.items import Catalog
from ..catalog.trie import ItemTrie
from .search.beam import numbered
from .types import (
    CompiledFilter,
    Hypotheses,
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


def ranked_items(
    trie: ItemTrie, leaves: Hypotheses, wanted: Int64, filters: Sequence[CompiledFilter | None]
) -> list[list[tuple[int, float]]]:
    """Every request's items (catalog positions) with their scores: all allowed of each leaf in catalog order, cut at
    `wanted` [B]."""
    request, rank = np.nonzero(leaves.nodes >= 0)
    which, item = trie.items_of(leaves.nodes[request, rank])
    score, request = leaves.scores[request, rank][which], request[which]
    for number, own in enumerate(filters):
        if own is not None:
            allowed = (request != number) | own.allows(item)
            request, item, score = request[allowed], item[allowed], score[allowed]
    inside = numbered(request, len(filters))[1] < wanted[request]
    ends = np.bincount(request[inside], minlength=len(filters)).cumsum().tolist()
    pairs = list(zip(item[inside].tolist(), score[inside].tolist(), strict=True))
    return [pairs[start:end] for start, end in pairwise([0, *ends])]


def recommendation(
    catalog: Catalog,
    request: Request,
    ranked: Sequence[tuple[int, float]],
    k: int,
    allowed: CompiledFilter | None,
    stats: RequestStats,
) -> Recommendation:
    """A request's answer, of the at most k items that were ranked for it."""
    items = tuple(
        RecommendedItem(catalog.item_ids[i], catalog.titles[i], score, catalog.identifiers[i]) for i, score in ranked
    )
    available = len(catalog.item_ids) if allowed is None else allowed.count
    return Recommendation(
        items, stats, request.unknown_items, request.shortened, available if available < k else None
    )  # fmt: skip
