"""What a search found, as the lists that users get."""

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
    RequestStats,
)


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
