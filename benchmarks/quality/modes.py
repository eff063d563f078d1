"""Every verification mode on real users: acceptance, target calls, ranking quality, difference to strict lists."""

from argparse import ArgumentParser, Namespace

import numpy as np
from tqdm import tqdm

from benchmarks.shared import arguments, dump, print_table, real_users
from specbeam.engines.bundle.items import Bundle
from specbeam.runtime import Drafting, EngineChoice, Recommendation, Recommender, Verification
from specbeam.runtime.answers import answered
from specbeam.runtime.metrics import ndcg_at_k, recall_at_k

Lists = list[list[str]]


def modes(options: Namespace) -> dict[str, Verification]:
    """Name to mode, strict first."""
    chosen = {"strict": Verification()}
    chosen |= {f"tolerant {slack:g}": Verification("tolerant", slack=slack) for slack in options.slack}
    for temperature in options.temperature:
        chosen[f"relaxed T={temperature:g}"] = Verification("relaxed", temperature=temperature)
        chosen[f"sampled T={temperature:g}"] = Verification("sampled", temperature=temperature)
    return {name: mode for name, mode in chosen.items() if mode.mode in options.modes}


def checked(recommender: Recommender, results: list[Recommendation], k: int) -> Lists:
    """The lists' items; every list is k items of the catalog, none twice, each with its own identifier."""
    catalog = recommender.catalog
    for result in results:
        items = [entry.item for entry in result.items]
        assert len(items) == len(set(items)) == min(k, len(catalog.item_ids))
        assert all(catalog.identifiers[catalog.position[entry.item]] == entry.identifier for entry in result.items)
    return [[entry.item for entry in result.items] for result in results]


def measure(recommender: Recommender, histories: Lists, users: list[str], k: int, name: str) -> list[Recommendation]:
    """The lists of all users, with a progress bar."""
    requests = [recommender.encode(history, user=user) for history, user in zip(histories, users, strict=True)]
    with tqdm(total=len(requests), desc=f"K={k}, {name}", disable=None, leave=False) as bar:
        return answered(recommender.run(requests, k, progress=lambda done: bar.update(done - bar.n)))


def add_modes(parser: ArgumentParser) -> None:
    """The modes to measure."""
    parser.set_defaults(top_k=[1, 3, 5, 10, 20])
    parser.add_argument("--modes", nargs="+", default=["strict", "tolerant", "relaxed", "sampled"])
    parser.add_argument("--slack", type=float, nargs="+", default=[0.05, 0.2], help="of tolerant, nats")
    parser.add_argument("--temperature", type=float, nargs="+", default=[1.0], help="of relaxed and sampled")


def main() -> None:
    options = arguments(__doc__, users=None, more=add_modes)
    bundle = Bundle.open(options.bundle)
    users, histories, labels = (part[: options.users] for part in real_users(options.data))
    rows, result = [], []
    for k in options.top_k:
        strict: Lists = []
        for name, mode in modes(options).items():
            recommender = Recommender.open(
                bundle, verification=mode, engine=EngineChoice(options.engine, threads=options.threads),
                drafting=Drafting(speculation="fixed"), batching=16,
            )  # fmt: skip
            results = measure(recommender, histories, users, k, name)
            ranked, stats = checked(recommender, results, k), recommender.stats
            strict = strict or ranked
            overlap = np.mean([len({*a} & {*b}) / len(b) for a, b in zip(ranked, strict, strict=True)])
            row = {
                "k": k, "mode": name, "target_calls": stats.target_calls / len(results),
                "accepted_steps": recommender.trie.length - stats.target_calls / len(results),
                "acceptance": stats.acceptance(), "nodes": stats.nodes_evaluated / len(results),
                "recall": recall_at_k(ranked, labels, k), "ndcg": ndcg_at_k(ranked, labels, k),
                "overlap_with_strict": float(overlap), "stand_ins": stats.stand_ins / len(results),
            }  # fmt: skip
            result.append(row)
            rates = " / ".join("-" if rate is None else f"{rate:.0%}" for rate in stats.acceptance())
            quality = f"{row['recall']:.4f}", f"{row['ndcg']:.4f}", f"{overlap:.1%}"
            rows.append([k, name, row["target_calls"], row["accepted_steps"], rates, *quality])
    print(f"{options.data.name}, {len(histories)} users, 40 nodes at each of 3 depths; every list is valid:\n")
    heads = ["K", "mode", "target calls", "accept steps", "acceptance by depth", "Recall@K", "NDCG@K", "overlap@K"]
    print_table(heads, rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
