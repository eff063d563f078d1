"""Lists that vary: `python examples/sampling.py BUNDLE`. K items drawn without replacement, exactly from the target's
distribution; the same seed and user draw the same, whatever is drafted."""

import sys

from specbeam.runtime import Drafting, DraftShape, Recommender, Verification


def lists(seed: int, drafting: Drafting) -> list[list[str]]:
    verification = Verification("sampled", temperature=1.0, seed=seed)
    sampler = Recommender.open(sys.argv[1], verification=verification, drafting=drafting)
    users = ["ann", "bob"]  # with the same history
    drawn = sampler.recommend([sampler.catalog.item_ids[:3]] * len(users), k=5, users=users)
    return [[best.item for best in result.items] for result in drawn]


monday, again = lists(11, Drafting(shape=DraftShape(8, 2))), lists(11, Drafting("none"))
for user, items in zip(["ann", "bob"], monday, strict=True):
    print(f"{user}, seed 11: {', '.join(items)}")
print(f"the same without a draft: {monday == again}")
print(f"ann, seed 12: {', '.join(lists(12, Drafting())[0])}")
