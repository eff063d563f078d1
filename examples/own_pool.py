"""Drafts from your own histories, without a draft model: `python examples/own_pool.py BUNDLE`. A pool counts which
items followed which; the lists are those of plain beam search whatever it holds."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from specbeam.catalog import HistoryRequest
from specbeam.pools.items.build import build_item_pool
from specbeam.runtime import Drafting, DraftShape, Recommender

bundle = sys.argv[1]
plain = Recommender.open(bundle, drafting="none")
ids = plain.catalog.item_ids
earlier = [HistoryRequest(f"u{n}", tuple(ids[n : n + 4]), line=n + 1) for n in range(len(ids) - 3)]  # yours, here

with TemporaryDirectory() as folder:
    built = build_item_pool(earlier, Path(folder) / "pool")
    print(f"a pool of {built.items} items from {built.histories} histories")
    drafting = Drafting("retrieval", pool=Path(folder) / "pool", shape=DraftShape(width=20, length=2))
    (drafted,) = Recommender.open(bundle, drafting=drafting).recommend([ids[:3]], k=5)

(expected,) = plain.recommend([ids[:3]], k=5)
print(f"items: {', '.join(best.item for best in drafted.items)}")
print(f"the same without the pool: {[b.item for b in drafted.items] == [b.item for b in expected.items]}")
print(f"calls of the target: {drafted.stats.target_calls} instead of {expected.stats.target_calls}")
print(f"calls of a draft model: {drafted.stats.draft_calls}")
