"""Every exact mode with drafts beside itself without: what the property of the name says, on a GPU."""

from functools import partial

from benchmarks.hardware.kit.engines import opened, proven
from benchmarks.hardware.kit.parts import Job, Steps, Wrong
from benchmarks.hardware.kit.record import Row
from benchmarks.hardware.kit.users import MODES, kept_users, largest_gap, overlap, pair, ranked, reference, same
from specbeam.evaluate.figures import ranking_fault
from specbeam.runtime import DraftShape
from specbeam.runtime.options import Drafting

TIES = 50  # one drawn list in so many may swap near-ties of its draws, which its scores do not tell


def steps(job: Job, backend: str) -> Steps:
    return {
        f"{engine}, {mode}, K = {k}": partial(compared, job, engine, mode, k)
        for engine in proven(job, backend)
        for mode in MODES
        for k in job.sizes.top_k
    }


def compared(job: Job, engine: str, mode: str, k: int) -> list[Row]:
    """Raises `Wrong` where drafts change a list of float32 beyond near-ties."""
    bundle, users, rows, faults = pair(job), kept_users(job), list[Row](), list[str]()
    length = bundle.manifest.identifier_length
    drafting = Drafting(shape=DraftShape(job.sizes.width, min(3, length - 1)))
    plain = ranked(
        opened(bundle, engine, drafting="none", verification=MODES[mode]).recommend(
            users.histories, k, users=users.names
        )
    )
    truth = reference(job, mode, k)
    drafted = opened(bundle, engine, drafting=drafting, verification=MODES[mode])
    for batch in job.sizes.batches:
        loop = drafted.variant(drafted.planning, batch)
        ours = ranked(loop.recommend(users.histories, k, users=users.names))
        rows.append({
            "engine": engine, "mode": mode, "K": k, "batch": batch, "lists": len(ours), "as without drafts":
            same(ours, plain), "overlap": overlap(ours, plain), "overlap with float32 on the CPU": overlap(ours, truth),
            "largest difference of a score": largest_gap(ours, plain), "rejected nodes": loop.stats.rejections,
            "target calls a user": loop.stats.target_calls / max(loop.stats.requests, 1),
        })  # fmt: skip
        faults += [fault for x, y in zip(ours, plain, strict=True) if (fault := ranking_fault(x, y))]
    allowed = sum(row["lists"] for row in rows) // TIES if mode == "sampled" else 0
    if engine.endswith("fp32") and len(faults) > allowed:
        raise Wrong(f"{len(faults)} lists are not those without drafts beyond near-ties: {faults[0]}", rows)
    return rows
