"""Speculative = no draft = `transformers` generate: identical lists for real users; how often the draft was wrong."""

from itertools import pairwise

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from reference import TrieGenerate, arguments, as_ranked, dump, leaf_identifiers, print_table, ranking_fault, real_users
from specrec.engines.bundle import Bundle
from specrec.runtime import Recommender


def main() -> None:
    options = arguments(__doc__, users=200)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    bundle = Bundle.open(options.bundle)
    catalog, trie = bundle.catalog(), bundle.trie()
    names = leaf_identifiers(trie, catalog.identifiers)
    _, histories, _ = real_users(options.shared / "data/beauty")
    histories = histories[:: len(histories) // options.users][: options.users]
    model = AutoModelForCausalLM.from_pretrained(options.shared / "models/beauty/target", dtype=torch.float32)
    generate = TrieGenerate(model, trie)
    rows = []
    for k in options.top_k:
        fast = Recommender.open(bundle, engine=options.engine, threads=options.threads)
        plain = Recommender.open(bundle, drafter="none", engine=options.engine, threads=options.threads)
        same, swapped, worst, nearest = 0, 0, 0.0, float("inf")
        pairs = zip(histories, fast.recommend(histories, k), plain.recommend(histories, k), strict=True)
        for history, a, b in tqdm(list(pairs), desc=f"K={k}", disable=None, leave=False):
            truth = [(names[leaf], score) for leaf, score in generate(fast.encode(history).prompt, k)]
            ours, naive = as_ranked(a), as_ranked(b)
            truth = truth[: len(ours)]
            faults = [fault for fault in (ranking_fault(ours, truth), ranking_fault(naive, truth)) if fault]
            if faults:
                raise SystemExit(f"K={k}, history {history}: {faults}")
            identical = [name for name, _ in ours] == [name for name, _ in truth] == [name for name, _ in naive]
            same, swapped = same + identical, swapped + (not identical)
            worst = max([worst, *(abs(x - y) for (_, x), (_, y) in zip(ours, truth, strict=True))])
            nearest = min([nearest, *(x - y for (_, x), (_, y) in pairwise(truth))])
        rows.append([k, len(histories), same, swapped, f"{worst:.1e}", f"{nearest:.1e}", fast.stats.rejections])
    heads = ["K", "users", "identical lists", "near-ties swapped", "largest score difference", "closest neighbours"]
    print_table([*heads, "real rejections (nodes)"], rows)
    dump(options.output, [dict(zip([*heads, "rejections"], row, strict=True)) for row in rows])


if __name__ == "__main__":
    main()
