"""Milliseconds a user: `transformers` generate, our loop without a draft, our loop with it; one process, same users.

The contestants take turns user by user, so that all of them meet the same state of the machine; each
figure is the median over users (for batches: over batches, divided by their size).
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from reference import TrieGenerate, arguments, dump, print_table, real_users
from specrec.engines.bundle import Bundle
from specrec.engines.registry import available_threads
from specrec.runtime import Recommender
from tqdm import tqdm
from transformers import AutoModelForCausalLM
from transformers.utils import logging

WARM_UP = 3


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that `work` takes."""
    start = perf_counter()
    work()
    return 1000 * (perf_counter() - start)


def turns(contestants: dict[str, Callable[[list[list[str]]], object]], groups: list[list[list[str]]], name: str) -> dict[str, float]:
    """Median milliseconds a user of each contestant over the groups of users, taking turns."""
    times: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    for i, group in enumerate(tqdm([*groups[:WARM_UP], *groups], desc=name, disable=None, leave=False)):
        for contestant, serve in contestants.items():
            elapsed = timed(lambda serve=serve, group=group: serve(group)) / len(group)
            if i >= WARM_UP:
                times[contestant].append(elapsed)
    return {contestant: median(measured) for contestant, measured in times.items()}


def main() -> None:
    options = arguments(__doc__, users=100)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    threads = options.threads or available_threads()
    torch.set_num_threads(threads)
    bundle = Bundle.open(options.bundle)
    _, histories, _ = real_users(options.shared / "data/beauty")
    histories = histories[:: len(histories) // options.users][: options.users]
    generate = TrieGenerate(AutoModelForCausalLM.from_pretrained(options.shared / "models/beauty/target"), bundle.trie())
    rows, result = [], []
    for k in options.top_k:
        plain = {b: Recommender.open(bundle, drafter="none", batch_size=b, threads=threads) for b in (1, 8)}
        fast = {b: Recommender.open(bundle, batch_size=b, threads=threads) for b in (1, 8)}
        one = turns(
            {
                "generate": lambda group, k=k: generate(fast[1].encode(group[0]).prompt, k),
                "plain": lambda group, k=k: plain[1].recommend(group, k),
                "speculative": lambda group, k=k: fast[1].recommend(group, k),
            },
            [[history] for history in histories],
            f"K={k}, batch 1",
        )
        by_length = sorted(histories, key=len)
        eight = turns(
            {
                "plain": lambda group, k=k: plain[8].recommend(group, k),
                "speculative": lambda group, k=k: fast[8].recommend(group, k),
            },
            [by_length[i : i + 8] for i in range(0, len(histories) - 7, 8)],
            f"K={k}, batch 8",
        )
        shares = [r.stats.host_seconds / r.stats.total_seconds for r in (plain[1], fast[1], plain[8], fast[8])]
        base = one["generate"]
        rows.append(
            [k, base]
            + [f"{ms:.2f} ({base / ms:.1f}x)" for ms in (one["plain"], one["speculative"], eight["plain"], eight["speculative"])]
            + [" / ".join(f"{share:.0%}" for share in shares)]
        )
        result.append({"k": k, "batch_1": one, "batch_8": eight, "host_shares": shares})
    heads = ["K", "generate", "no draft, batch 1", "speculative, batch 1", "no draft, batch 8", "speculative, batch 8"]
    print(f"{options.users} users, {threads} threads, ms a user (times as fast as generate):\n")
    print_table([*heads, "host time (four columns before)"], rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
