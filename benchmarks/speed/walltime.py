"""Milliseconds a user: `transformers` generate, our loop without a draft and with drafts of some shapes.

One process and the same users. The contestants take turns user by user, so that all of them meet the
same state of the machine; each figure is the median over users (for batches: over batches, divided by
their size).
"""

from argparse import ArgumentParser, Namespace

import torch
from transformers.utils import logging

from benchmarks.shared import Contestant, TrieGenerate, arguments, dump, print_table, real_users, shape, turns
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.machine.processors import available_threads
from specbeam.engines.torch import load_model
from specbeam.runtime import Drafting, DraftShape, EngineChoice, Recommender


def recommenders(bundle: Bundle, options: Namespace, batch: int) -> dict[str, Recommender]:
    """Our loop without a draft, and with drafts of the shapes asked for."""
    common = {"engine": EngineChoice(options.engine, threads=options.threads), "batching": batch}
    loops = {"no draft": Recommender.open(bundle, drafting="none", **common)}
    for width, length in options.shapes:
        loops[f"draft {width} x {length}"] = Recommender.open(
            bundle, drafting=Drafting(shape=DraftShape(width, length)), **common
        )
    return loops


def measure(
    k: int, loops: dict[str, Recommender], histories: list[list[str]], batch: int, generate: TrieGenerate | None
) -> dict[str, float]:
    """Median milliseconds a user of every loop, and of `generate` if it is given (batch 1 only)."""

    def served_by(loop: Recommender) -> Contestant:
        return lambda group: loop.recommend(group, k)

    contestants = {name: served_by(loop) for name, loop in loops.items()}
    if generate is not None:
        encode = loops["no draft"].encode
        contestants["generate"] = lambda group: generate(encode(group[0]).prompt, k)
    groups = [histories[i : i + batch] for i in range(0, len(histories) - batch + 1, batch)]
    return turns(contestants, groups, f"K={k}, batch {batch}")


def add_shapes(parser: ArgumentParser) -> None:
    """The option for the drafts to measure."""
    default = [(40, 3), (24, 3), (20, 1)]
    parser.add_argument("--shapes", type=shape, nargs="+", default=default, help="drafts: nodes x depths, e.g. 40x3")


def main() -> None:
    options = arguments(__doc__, users=100, more=add_shapes)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options.threads = options.threads or available_threads()
    torch.set_num_threads(options.threads)
    bundle = Bundle.open(options.bundle)
    _, histories, _ = real_users(options.data)
    histories = sorted(histories[:: len(histories) // options.users][: options.users], key=len)
    target = load_model(options.pair / "target", torch.float32)
    generate = TrieGenerate(target, bundle.trie(), end_token=bundle.manifest.end_token)
    rows, result = [], []
    for k in options.top_k:
        one, eight = recommenders(bundle, options, 1), recommenders(bundle, options, 8)
        times_1 = measure(k, one, histories, 1, generate)
        times_8 = measure(k, eight, histories, 8, None)
        base = times_1["generate"]
        rows.append([k, "generate", f"{base:.2f} (1.0x)", "", "", "", ""])
        for name in one:
            stats = eight[name].stats
            shares = [loop.stats.host_seconds / loop.stats.total_seconds for loop in (one[name], eight[name])]
            rows.append(
                [k, name]
                + [f"{ms:.2f} ({base / ms:.1f}x)" for ms in (times_1[name], times_8[name])]
                + [f"{share:.0%}" for share in shares]
                + [stats.target_calls / stats.requests]
            )
        result.append({"k": k, "batch_1": times_1, "batch_8": times_8})
    print(f"{options.users} users, {options.threads} threads, ms a user (times as fast as generate at batch 1):\n")
    print_table(["K", "", "batch 1", "batch 8", "host, batch 1", "host, batch 8", "target calls"], rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
