"""Drafts from a pool of histories, beside the draft model's and none."""

from functools import partial
from time import perf_counter

from benchmarks.hardware.kit.engines import opened, proven
from benchmarks.hardware.kit.parts import Job, Steps, Wrong
from benchmarks.hardware.kit.record import Row
from benchmarks.hardware.kit.users import kept_users, other_histories, overlap, pair, ranked, same
from specbeam.catalog.histories.requests import HistoryRequest
from specbeam.evaluate.figures import ranking_fault
from specbeam.pools.items.build import build_item_pool
from specbeam.pools.items.pool import ItemPool
from specbeam.runtime import DraftShape
from specbeam.runtime.options import Drafting


def steps(job: Job) -> Steps:
    """The pool, and what it brings each engine."""
    each = {engine: partial(drafted, job, engine) for engine in proven(job)}
    return {"pool": partial(pool, job), **each}


def pool(job: Job) -> list[Row]:
    histories = other_histories(job, pair(job))
    entries = (HistoryRequest(str(i), tuple(items), i + 1) for i, items in enumerate(histories))
    build_item_pool(entries, job.work / "pool", overwrite=True)
    return [{"histories in the pool": len(histories)}]


def drafted(job: Job, engine: str) -> list[Row]:
    """The same users by every drafter; raises `Wrong` where one changes a list of float32."""
    bundle, users, sizes = pair(job), kept_users(job).first(job.sizes.timed), job.sizes
    found, k = ItemPool.open(job.work / "pool"), max(job.sizes.top_k)
    shape = DraftShape(sizes.width, min(3, bundle.manifest.identifier_length - 1))
    ways = {"none": Drafting("none"), "model": Drafting("model", shape=shape)}
    ways |= {kind: Drafting(kind, found, shape=shape) for kind in ("retrieval", "both")}
    rows, plain, faults = list[Row](), None, list[str]()
    for name, drafting in ways.items():
        recommender = opened(bundle, engine, drafting=drafting)
        recommender.recommend(users.histories[: 2 * recommender.batch_size], k)  # the first calls allocate
        loop = recommender.variant(recommender.planning, recommender.batch_size)
        start = perf_counter()
        ours = ranked(loop.recommend(users.histories, k, users=users.names))
        seconds = perf_counter() - start
        plain = plain or ours
        faults += [fault for x, y in zip(ours, plain, strict=True) if (fault := ranking_fault(x, y))]
        rows.append({
            "engine": engine, "drafts from": name, "K": k, "batch": loop.batch_size, "users": len(ours),
            "target calls a user": loop.stats.target_calls / len(ours), "ms a user": 1000 * seconds / len(ours),
            "as without drafts": same(ours, plain), "overlap": overlap(ours, plain),
        })  # fmt: skip
    if engine.endswith("fp32") and faults:
        raise Wrong(f"{len(faults)} lists are not those without drafts beyond near-ties: {faults[0]}", rows)
    return rows
