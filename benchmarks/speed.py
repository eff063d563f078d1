"""Milliseconds a user: `transformers` generate, our loop without a draft, our loop with it; one process, same users.

The contestants take turns user by user, so that all of them meet the same state of the machine; each
figure is the median over users (for batches: over batches, divided by their size).
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter, sleep

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from reference import TrieGenerate, arguments, dump, print_table, real_users
from specrec.engines.bundle import Bundle
from specrec.engines.registry import available_threads
from specrec.runtime import Recommender

WARM_UP = 3
PAUSE = 0.01  # seconds before each turn: the threads of the contestant before stop spinning meanwhile
Contestant = Callable[[list[list[str]]], object]


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that `work` takes."""
    sleep(PAUSE)
    start = perf_counter()
    work()
    return 1000 * (perf_counter() - start)


def turns(contestants: dict[str, Contestant], groups: list[list[list[str]]], name: str) -> dict[str, float]:
    """Median milliseconds a user of each contestant over the groups of users, taking turns."""
    times: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    for i, group in enumerate(tqdm([*groups[:WARM_UP], *groups], desc=name, disable=None, leave=False)):
        for contestant, serve in contestants.items():
            elapsed = timed(lambda serve=serve, group=group: serve(group)) / len(group)
            if i >= WARM_UP:
                times[contestant].append(elapsed)
    return {contestant: median(measured) for contestant, measured in times.items()}


def contestants(k: int, generate: TrieGenerate, plain: Recommender, fast: Recommender) -> dict[str, Contestant]:
    """How each serves a group of histories; `generate` takes the first of them only."""
    return {
        "generate": lambda group: generate(fast.encode(group[0]).prompt, k),
        "plain": lambda group: plain.recommend(group, k),
        "speculative": lambda group: fast.recommend(group, k),
    }


def main() -> None:
    options = arguments(__doc__, users=100)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    threads = options.threads or available_threads()
    torch.set_num_threads(threads)
    bundle = Bundle.open(options.bundle)
    _, histories, _ = real_users(options.shared / "data/beauty")
    histories = histories[:: len(histories) // options.users][: options.users]
    target = AutoModelForCausalLM.from_pretrained(options.shared / "models/beauty/target")
    generate = TrieGenerate(target, bundle.trie())
    rows, result = [], []
    for k in options.top_k:
        plain = {b: Recommender.open(bundle, drafter="none", batch_size=b, threads=threads) for b in (1, 8)}
        fast = {b: Recommender.open(bundle, batch_size=b, threads=threads) for b in (1, 8)}
        one = turns(
            contestants(k, generate, plain[1], fast[1]),
            [[history] for history in histories],
            f"K={k}, batch 1",
        )
        by_length = sorted(histories, key=len)
        batched = contestants(k, generate, plain[8], fast[8])
        del batched["generate"]
        eight = turns(
            batched,
            [by_length[i : i + 8] for i in range(0, len(histories) - 7, 8)],
            f"K={k}, batch 8",
        )
        shares = [r.stats.host_seconds / r.stats.total_seconds for r in (plain[1], fast[1], plain[8], fast[8])]
        base = one["generate"]
        rows.append(
            [k, base]
            + [f"{ms:.2f} ({base / ms:.1f}x)" for ms in (*list(one.values())[1:], *eight.values())]
            + [" / ".join(f"{share:.0%}" for share in shares)]
        )
        result.append({"k": k, "batch_1": one, "batch_8": eight, "host_shares": shares})
    heads = ["K", "generate", "no draft, batch 1", "speculative, batch 1", "no draft, batch 8", "speculative, batch 8"]
    print(f"{options.users} users, {threads} threads, ms a user (times as fast as generate):\n")
    print_table([*heads, "host time (four columns before)"], rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
