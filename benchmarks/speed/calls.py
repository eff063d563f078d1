"""Target calls and nodes a user over all test users, beside AtSpeed's all-or-nothing rule; checks every list."""

import numpy as np
from tqdm import tqdm

from benchmarks.shared import arguments, dump, print_table, real_users
from specbeam.engines.bundle.items import Bundle
from specbeam.runtime import Drafting, EngineChoice, Recommender
from specbeam.runtime.answers import answered
from specbeam.runtime.metrics import ndcg_at_k, recall_at_k


def check(recommender: Recommender, items: list[str], identifiers: list[tuple[str, ...]], k: int) -> None:
    """A list is valid: k items of the catalog, none twice, each with its own identifier."""
    catalog = recommender.catalog
    assert len(items) == len(set(items)) == min(k, len(catalog.item_ids))
    assert all(catalog.identifiers[catalog.position[item]] == i for item, i in zip(items, identifiers, strict=True))


def main() -> None:
    options = arguments(__doc__, users=None)
    bundle = Bundle.open(options.bundle)
    _, histories, labels = real_users(options.data)
    histories, labels = histories[: options.users], labels[: options.users]
    rows, result = [], []
    for k in options.top_k:
        counts = {}
        for rule, reuse in (("ours", True), ("all-or-nothing", False)):
            recommender = Recommender.open(
                bundle,
                engine=EngineChoice(options.engine, threads=options.threads),
                drafting=Drafting(speculation="fixed", reuse=reuse),
                batching=16,
            )
            requests = [recommender.encode(history) for history in histories]
            with tqdm(total=len(requests), desc=f"K={k}, {rule}", disable=None, leave=False) as bar:
                results = answered(
                    recommender.run(requests, k, progress=lambda done, bar=bar: bar.update(done - bar.n))
                )
            ranked = [[entry.item for entry in entry_list.items] for entry_list in results]
            for items, entry_list in zip(ranked, results, strict=True):
                check(recommender, items, [entry.identifier for entry in entry_list.items], k)
            calls = np.array([entry_list.stats.target_calls for entry_list in results])
            stats = recommender.stats
            counts[rule] = {
                "target_calls": float(calls.mean()),
                "calls_distribution": np.bincount(calls, minlength=5)[1:].tolist(),
                "draft_calls": stats.draft_calls / len(results),
                "nodes": stats.nodes_evaluated / len(results),
                "rejected_nodes": stats.rejections,
                "acceptance": stats.acceptance(),
                "recall": recall_at_k(ranked, labels, k),
                "ndcg": ndcg_at_k(ranked, labels, k),
            }
        ours, theirs = counts["ours"], counts["all-or-nothing"]
        rows.append(
            [k, ours["target_calls"], theirs["target_calls"], f"{ours['nodes']:.0f}", f"{theirs['nodes']:.0f}",
             ours["draft_calls"], " / ".join(f"{rate:.1%}" for rate in ours["acceptance"]), ours["rejected_nodes"],
             f"{ours['recall']:.4f}", f"{ours['ndcg']:.4f}"]
        )  # fmt: skip
        result.append({"k": k, **counts})
    print(f"{len(histories)} users, 40 nodes at each of 3 depths; every list is valid, means a user:\n")
    heads = ["K", "target calls", "all-or-nothing", "nodes", "all-or-nothing", "draft calls", "acceptance by depth"]
    print_table([*heads, "rejected nodes", "Recall@K", "NDCG@K"], rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
