"""What may be recommended: `python examples/filters.py BUNDLE`. A filter is a mask on the trie; no list comes short
of items that are allowed."""

import sys

from specbeam.runtime import ItemFilter, Recommender

recommender = Recommender.open(sys.argv[1])
history = recommender.catalog.item_ids[:3]


def show(name: str, item_filter: ItemFilter | None = None, *, exclude_history: bool = False) -> None:
    (result,) = recommender.recommend([history], k=5, item_filter=item_filter, exclude_history=exclude_history)
    fewer = "" if result.available is None else f" (only {result.available} are allowed)"
    print(f"{name}: {', '.join(best.item for best in result.items)}{fewer}")


(plain,) = recommender.recommend([history], k=5)
best = plain.items[0].item
show("everything")
show(f"without {best}", ItemFilter(deny=frozenset({best})))
show("what is in stock", ItemFilter(allow=frozenset(recommender.catalog.item_ids[-4:])))
show("nothing the user has", exclude_history=True)
