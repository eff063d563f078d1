"""What it costs to look whether log-probabilities are numbers: processor time of searches with that and without.

One process and the same users. Both take turns batch by batch, the first one changing; the time is the process's own
on the processor, so that others on the machine hardly matter. Beside it the time inside the check alone.
"""

from collections.abc import Callable
from time import process_time, thread_time

import numpy as np

from benchmarks.shared import arguments, dump, print_table, real_users
from specbeam.catalog.finite import are_logprobs
from specbeam.engines.bundle.items import Bundle
from specbeam.runtime import Drafting, DraftShape, EngineChoice, Recommender
from specbeam.runtime.metrics import median_estimate
from specbeam.runtime.search import nodes

ROUNDS, WARM_UP = 5, 3
Check = Callable[[np.ndarray], bool]


def taken(recommender: Recommender, histories: list[list[str]], k: int, check: Check) -> float:
    """Processor milliseconds of one batch."""
    nodes.are_logprobs = check
    try:
        start = process_time()
        recommender.recommend(histories, k)
        return 1000 * (process_time() - start)
    finally:
        nodes.are_logprobs = are_logprobs


class Timed:
    """The check, and how much time it took."""

    def __init__(self) -> None:
        self.milliseconds, self.calls, self.numbers = 0.0, 0, 0

    def __call__(self, values: np.ndarray) -> bool:
        start = thread_time()
        fine = are_logprobs(values)
        self.milliseconds += 1000 * (thread_time() - start)
        self.calls, self.numbers = self.calls + 1, self.numbers + values.size
        return fine


def measure(recommender: Recommender, groups: list[list[list[str]]], k: int) -> dict[str, float]:
    """Both, in turns, over all groups and rounds."""
    for group in groups[:WARM_UP]:
        recommender.recommend(group, k)
    pairs = []
    for number, group in enumerate(groups * ROUNDS):
        checks: list[Check] = [are_logprobs, lambda values: True]
        order = (0, 1) if number % 2 else (1, 0)
        times = {which: taken(recommender, group, k, checks[which]) for which in order}
        pairs.append((times[0], times[1]))
    on, off = np.array(pairs).T
    ratio = on / off
    change = median_estimate(ratio)
    inside = Timed()
    whole = sum(taken(recommender, group, k, inside) for group in groups)
    return {
        "with": float(np.median(on)) / len(groups[0]), "without": float(np.median(off)) / len(groups[0]),
        "ratio": change.value, "low": change.low, "high": change.high, "inside": inside.milliseconds / whole,
        "microseconds": 1000 * inside.milliseconds / inside.calls, "numbers": inside.numbers / inside.calls,
    }  # fmt: skip


def main() -> None:
    options = arguments(__doc__, users=96)
    bundle = Bundle.open(options.bundle)
    _, histories, _ = real_users(options.data)
    histories = histories[:: len(histories) // options.users][: options.users]
    rows, result = [], []
    for k in options.top_k:
        for batch in (1, 8):
            groups = [histories[i : i + batch] for i in range(0, len(histories) - batch + 1, batch)]
            for shape in (None, DraftShape()):
                recommender = Recommender.open(
                    bundle, engine=EngineChoice(options.engine, threads=options.threads or 1), batching=batch,
                    drafting=Drafting(shape=shape) if shape else "none",
                )  # fmt: skip
                found = measure(recommender, groups, k)
                name = "40 x 3" if shape else "no draft"
                change = "{:+.2%} ({:+.2%} to {:+.2%})".format(*(found[key] - 1 for key in ("ratio", "low", "high")))
                inside = f"{found['inside']:.2%}", f"{found['microseconds']:.1f}", f"{found['numbers']:.0f}"
                rows.append([k, batch, name, f"{found['with']:.2f}", f"{found['without']:.2f}", change, *inside])
                result.append({"k": k, "batch": batch, "draft": name, **found})
    print(f"{options.users} users, processor ms a user (median), {ROUNDS} rounds:\n")
    heads = ["K", "batch", "", "with", "without", "change (95 %)", "inside", "us a call", "numbers a call"]
    print_table(heads, rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
