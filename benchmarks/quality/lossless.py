"""Every exact mode on real users: speculative = no draft, at any batch size, and = `transformers` generate.

Strict verification by both scorings is compared with `generate` as well; sampled verification with itself
without a draft, for the same seed. How often the draft was wrong is counted, so that there was something to correct.
Near-ties may swap, those of the K-th and the next beam of a step on the way as well.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
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
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.bundle.items import Bundle
from specbeam.evaluate.figures import NEAR
from specbeam.runtime import Drafting, DraftShape, EngineChoice, Recommendation, Recommender, Verification
from specbeam.runtime.types import Int64

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


@torch.inference_mode()
def closest(model: Any, trie: ItemTrie, prompt: Int64, k: int, scoring: str) -> float:
    """The least by which the K-th beam leads the next at any step of a beam search that keeps no cache."""
    ids, scores, nodes, written = (
        torch.from_numpy(prompt)[None],
        np.zeros(1),
        np.zeros(1, np.int64),
        np.empty((1, 0), int),
    )
    least = np.inf
    for _ in range(trie.length - 1):
        rows = torch.from_numpy(written)
        own = ids.expand(len(rows), -1)
        if model.config.is_encoder_decoder:
            start = torch.full((len(rows), 1), model.config.decoder_start_token_id)
            logits = model(input_ids=own, decoder_input_ids=torch.cat([start, rows], 1)).logits[:, -1]
        else:
            logits = model(torch.cat([own, rows], 1)).logits[:, -1]
        beam = np.repeat(np.arange(len(nodes)), trie.child_count[nodes])
        child = np.concatenate([np.arange(trie.child_count[n]) + trie.first_child[n] for n in nodes])
        token = trie.tokens(child)
        if scoring == "constrained":
            allowed = torch.full_like(logits, -torch.inf)
            allowed[beam, token] = logits[beam, token]
            logits = allowed
        found = scores[beam] + logits.log_softmax(-1)[beam, token].double().numpy()
        best = np.argsort(-found, kind="stable")
        if len(best) > k:
            least = min(least, float(found[best[k - 1]] - found[best[k]]))
        best = best[:k]
        scores, nodes = found[best], child[best]
        written = np.concatenate([written[beam[best]], token[best, None]], 1)
        if (trie.child_count[nodes] == 0).any():
            break  # identifiers of other lengths: no more steps are told
    return least


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
    common = {"engine": EngineChoice(options.engine, threads=options.threads)}
    rows = []
    for mode, verification in MODES.items():
        generate = None
        if verification.scoring is not None:
            generate = TrieGenerate.open(bundle, device="cpu", scoring=verification.scoring)
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
            same, cut, worst = 0, 0, 0.0
            for i, history in enumerate(tqdm(histories, desc=f"{mode}, K={k}", disable=None, leave=False)):
                fast, truth = [answer[i] for answer in answers], None
                if generate is not None:
                    truth = [(names[leaf], s) for leaf, s in generate(plain.encode(history).prompt, k)]
                if wrong := faults(mode, expected[i], fast, truth):
                    prompt, scoring = plain.encode(history).prompt, verification.scoring
                    if generate is None or not closest(generate.model, trie, prompt, k, str(scoring)) < NEAR:
                        raise SystemExit(f"K={k}, history {history}: {wrong}")
                    cut += 1
                    continue
                reference = as_ranked(expected[i]) if truth is None else truth
                lists = [as_ranked(result) for result in (expected[i], *fast)]
                same += all([n for n, _ in ours] == [n for n, _ in reference[: len(ours)]] for ours in lists)
                worst = max(
                    worst, *(abs(x - y) for ours in lists for (_, x), (_, y) in zip(ours, reference, strict=False))
                )
            rejected = loops[0].stats.rejections - rejected
            rows.append([mode, k, len(histories), same, len(histories) - same, cut, f"{worst:.1e}", rejected])
    batches = ", ".join(map(str, BATCHES))
    print(f"{options.data.name}: drafts of 40 x 3 at batch {batches}, no draft, and (strict) generate:\n")
    heads = [
        "mode",
        "K",
        "users",
        "identical lists",
        "near-ties swapped",
        "of them on the way",
        "largest score difference",
    ]
    print_table([*heads, "real rejections (nodes)"], rows)
    dump(options.output, [dict(zip([*heads, "rejections"], row, strict=True)) for row in rows])


if __name__ == "__main__":
    main()
