"""Requests one at a time, from an event loop and from threads: `python examples/serving.py BUNDLE`."""

import asyncio
import sys

import numpy as np

from specbeam.runtime import EngineChoice, Verification
from specbeam.serve import AsyncRecommender, Overloaded, Serving


async def answered(recommender: AsyncRecommender, history: list[str]) -> None:
    served = await recommender.serve(history, k=5, timeout=10)
    best = served.recommendation.items[0]
    print(f"{history[0]}: {best.item}, in a batch of {served.batch}, model {served.version}, catalog {served.catalog}")


async def main(recommender: AsyncRecommender) -> None:
    items = recommender.edition.recommender.catalog.item_ids
    await asyncio.gather(*(answered(recommender, [item]) for item in items[:8]))
    drawn = await recommender.recommend([items[0]], k=3, verification=Verification("sampled", seed=7), priority=1)
    print("drawn:", *(entry.item for entry in drawn.items))


with AsyncRecommender.open(sys.argv[1], engine=EngineChoice(threads=1), serving=Serving(size=4, queue=100)) as serving:
    asyncio.run(main(serving))
    future = serving.submit(serving.edition.recommender.catalog.item_ids[:3], k=3)  # from any thread
    try:
        print("submitted:", *(entry.item for entry in future.result().recommendation.items))
    except Overloaded as error:
        print(f"ask again in {error.retry_after} s")
    prompt = serving.edition.recommender.encode(serving.edition.recommender.catalog.item_ids[:2]).prompt
    places, scores = serving.recommend_arrays(prompt[None], np.array([len(prompt)]), k=3)
    print("arrays:", places.tolist(), scores.dtype, scores.shape)
