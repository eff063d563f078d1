"""What a deny-list of half the catalog costs: milliseconds a user with and without it, taking turns."""

from functools import partial
from statistics import median

from tqdm import tqdm

from benchmarks.shared import WARM_UP, arguments, dump, print_table, real_users, timed
from specbeam.engines.bundle.items import Bundle
from specbeam.runtime import EngineChoice, ItemFilter, Recommender


def main() -> None:
    options = arguments(__doc__, users=400)
    bundle = Bundle.open(options.bundle)
    _, histories, _ = real_users(options.data)
    histories = sorted(histories[: options.users], key=len)
    recommender = Recommender.open(
        bundle, engine=EngineChoice(options.engine, threads=options.threads), drafting="none"
    )
    half = ItemFilter(deny=frozenset(recommender.catalog.item_ids[::2]))
    contestants = {
        "no filter": {},
        "deny half": {"item_filter": half},
        "exclude the history": {"exclude_history": True},
        "no filter again": {},
    }
    rows, result = [], []
    for batch in (1, 8, 32):
        recommender = recommender.variant(recommender.planning, batch)
        groups = [histories[i : i + batch] for i in range(0, len(histories) - batch + 1, batch)]
        for k in options.top_k:
            times: dict[str, list[float]] = {name: [] for name in contestants}
            for number, group in enumerate(tqdm([*groups[:WARM_UP], *groups], disable=None, leave=False)):
                for name, asked in contestants.items():
                    elapsed = timed(partial(recommender.recommend, group, k, **asked))
                    if number >= WARM_UP:
                        times[name].append(elapsed / batch)
            base = times["no filter"]
            ratios = {name: median(a / b for a, b in zip(own, base, strict=True)) - 1 for name, own in times.items()}
            result.append({"batch": batch, "k": k, "milliseconds": {n: median(t) for n, t in times.items()}, **ratios})
            rows.append(
                [batch, k, median(base), *(f"{ratios[name]:+.1%}" for name in contestants if name != "no filter")]
            )
    print(f"{len(histories)} users, plain beam search; ms a user, and the median change of the same batches:\n")
    print_table(["batch", "K", *contestants], rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
