"""Every exact mode on real users: speculative = no draft, at any batch size, and = `transformers` generate.

Strict verification by both scorings is compared with `generate` as well; sampled verification with itself
without a draft, for the same seed. How often the draft was wrong is counted, so that there was something to correct.
"""

from collections.abc import Sequence

import torch
from tqdm import tqdm
from transformers.utils import logging

from benchmarks.shared import (
    Ranked,
    TrieGenerate,
    arguments,
    as_ranked,
    dump,
    leaf_identifiers,
    print_table,
    ranking_fault,
    real_users,
)  # fmt: skip
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.torch import load_model
from specbeam.runtime import Drafting, DraftShape, EngineChoice, Recommendation, Recommender, Verification

BATCHES = (1, 7, 32)
MODES = {
    "strict, full": Verification(scoring="full"),
    "strict, constrained": Verification(scoring="constrained"),
    "sampled": Verification("sampled", seed=11),
}


def drawn_fault(got: Recommendation, expected: Recommendation) -> str | None:
    """Why two draws are not the same items in the same order with the same scores, or None."""
    for rank, (a, b) in enumerate(zip(as_ranked(got), as_ranked(expected), strict=True), 1):
        if a[0] != b[0] or abs(a[1] - b[1]) > 1e-3:
            return f"rank {rank}: {a}, expected {b}"
    return None


def faults(mode: str, plain: Recommendation, fast: Sequence[Recommendation], truth: Ranked | None) -> list[str]:
    """What is wrong with one user's lists."""
    if truth is None:
        found = [drawn_fault(result, plain) for result in fast]
    else:
        found = [ranking_fault(as_ranked(result), truth[: len(as_ranked(result))]) for result in (plain, *fast)]
    return [f"{mode}: {fault}" for fault in found if fault]


def main() -> None:
    options = arguments(__doc__, users=200)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    bundle = Bundle.open(options.bundle)
    catalog, trie = bundle.catalog(), bundle.trie()
    names = leaf_identifiers(trie, catalog.identifiers)
    users, histories, _ = real_users(options.data)
    step = len(histories) // options.users
    users, histories = users[::step][: options.users], histories[::step][: options.users]
    model = load_model(options.pair / "target", torch.float32)
    common = {"engine": EngineChoice(options.engine, threads=options.threads)}
    rows = []
    for mode, verification in MODES.items():
        generate = None
        if verification.scoring is not None:
            generate = TrieGenerate(model, trie, end_token=bundle.manifest.end_token, scoring=verification.scoring)
        plain = Recommender.open(bundle, verification=verification, drafting="none", **common)
        loops = [
            Recommender.open(
                bundle, verification=verification, drafting=Drafting(shape=DraftShape()), batching=batch, **common
            )
            for batch in BATCHES
        ]
        for k in options.top_k:
            rejected = loops[0].stats.rejections
            expected = plain.recommend(histories, k, users=users)
            answers = [loop.recommend(histories, k, users=users) for loop in loops]
            same, worst = 0, 0.0
            for i, history in enumerate(tqdm(histories, desc=f"{mode}, K={k}", disable=None, leave=False)):
                fast, truth = [answer[i] for answer in answers], None
                if generate is not None:
                    truth = [(names[leaf], s) for leaf, s in generate(plain.encode(history).prompt, k)]
                if wrong := faults(mode, expected[i], fast, truth):
                    raise SystemExit(f"K={k}, history {history}: {wrong}")
                reference = as_ranked(expected[i]) if truth is None else truth
                lists = [as_ranked(result) for result in (expected[i], *fast)]
                same += all([n for n, _ in ours] == [n for n, _ in reference[: len(ours)]] for ours in lists)
                worst = max(
                    worst, *(abs(x - y) for ours in lists for (_, x), (_, y) in zip(ours, reference, strict=False))
                )
            rejected = loops[0].stats.rejections - rejected
            rows.append([mode, k, len(histories), same, len(histories) - same, f"{worst:.1e}", rejected])
    batches = ", ".join(map(str, BATCHES))
    print(f"{options.data.name}: drafts of 40 x 3 at batch {batches}, no draft, and (strict) generate:\n")
    heads = ["mode", "K", "users", "identical lists", "near-ties swapped", "largest score difference"]
    print_table([*heads, "real rejections (nodes)"], rows)
    dump(options.output, [dict(zip([*heads, "rejections"], row, strict=True)) for row in rows])


if __name__ == "__main__":
    main()
