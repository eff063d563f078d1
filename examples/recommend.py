"""The best items for histories: `python examples/recommend.py BUNDLE [HISTORIES]`."""

import sys
from pathlib import Path

from specbeam.catalog import HistoryRequest, read_histories
from specbeam.runtime import Batching, EngineChoice, Recommender

bundle, *files = sys.argv[1:]
recommender = Recommender.open(bundle, engine=EngineChoice(threads=1), batching=Batching(8))
if files:
    entries = [entry for entry in read_histories([Path(file) for file in files]) if isinstance(entry, HistoryRequest)]
    users, histories = [entry.user for entry in entries], [entry.items for entry in entries]
else:  # somebody who has the catalog's first items
    users, histories = ["somebody"], [recommender.catalog.item_ids[:3]]

for user, result in zip(users, recommender.recommend(histories, k=5, users=users), strict=True):
    stats = result.stats
    print(f"{user}: {stats.target_calls} calls of the target, {stats.nodes_evaluated} prefixes evaluated")
    for place, best in enumerate(result.items, start=1):
        print(f"  {place}. {best.item}  {best.title or 'without a title'}  {best.score:.3f}")
