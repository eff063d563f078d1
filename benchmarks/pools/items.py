"""Drafting from a pool of histories: target calls and users a second, with drafter none, model, retrieval and both.

The pool is built of what is known when the test users come: training and validation histories, no test items. Every
drafted list is compared with that of plain beam search. For the times, the contestants take turns, group of users by
group of users, and each figure is a median; `auto` is tuned for each drafter on other users first.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from benchmarks.shared import arguments, dump, print_table, real_users, shape, turns
from specbeam.catalog.histories.read import read_histories
from specbeam.catalog.histories.requests import HistoryRequest
from specbeam.engines.bundle.default import default_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.machine.processors import available_threads
from specbeam.evaluate.tune import tune
from specbeam.pools.items.build import build_item_pool
from specbeam.pools.items.pool import ItemPool
from specbeam.runtime import Drafting, DraftShape, EngineChoice, Recommendation, Recommender
from specbeam.runtime.options import Speculation
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.planning.tuning_file import tuning_file
from specbeam.runtime.types import DrafterKind

DRAFTERS: tuple[DrafterKind, ...] = ("model", "retrieval", "both")
TIMED_SHAPE = (40, 3)


class Contestants:
    """One recommender for each drafter, and their variants."""

    def __init__(self, bundle: Bundle, pool: ItemPool, options: Namespace) -> None:
        self._name = options.engine
        self._common = {"engine": EngineChoice(options.engine, threads=options.threads)}
        self._bundle, self._pool = bundle, pool
        self._none = Recommender.open(bundle, drafting="none", **self._common)
        self._drafting = {drafter: self._open(drafter, "fixed") for drafter in DRAFTERS}

    def _open(self, drafter: DrafterKind, speculation: Speculation) -> Recommender:
        pool = None if drafter == "model" else self._pool
        return Recommender.open(self._bundle, drafting=Drafting(drafter, pool, speculation), **self._common)

    def fixed(self, shapes: Sequence[tuple[int, int]], batch: int) -> dict[str, Recommender]:
        """No drafter, then every drafter with every shape."""
        loops = {"none": self._none.variant(self._none.planning, batch)}
        for drafter, recommender in self._drafting.items():
            for width, length in shapes:
                planning = FixedPlanning(DraftShape(width, length))
                loops[f"{drafter}, {width} x {length}"] = recommender.variant(planning, batch)
        return loops

    def auto(self, batch: int) -> dict[str, Recommender]:
        """Every drafter where it pays."""
        opened = {drafter: self._open(drafter, "auto") for drafter in DRAFTERS}
        return {f"{drafter}, auto": each.variant(each.planning, batch) for drafter, each in opened.items()}

    def tune(self, histories: Sequence[Sequence[str]], top_k: Sequence[int]) -> None:
        """Measure for auto what has not been measured for this pool."""
        engine = self._name
        for drafter in DRAFTERS:
            file = tuning_file(self._bundle, engine, "strict", self._bundle.manifest.scoring, drafter)
            if not file.is_file() or (drafter != "model" and self._pool.checksum not in file.read_text()):
                pool = None if drafter == "model" else self._pool
                tune(self._bundle, histories, top_k=top_k, drafting=Drafting(drafter, pool=pool), **self._common)


def pool_of(folder: Path, path: Path | None) -> ItemPool:
    """The pool at `path` if there is one, else made (there)."""
    path = path or Path(mkdtemp(prefix="specbeam-bench-")) / "pool"
    if not path.exists():
        files = [folder / f"sequential_{part}.txt" for part in ("train", "valid")]
        entries = read_histories(files, item_base=1)
        build_item_pool((entry for entry in entries if isinstance(entry, HistoryRequest)), path)
    return ItemPool.open(path)


def same(drafted: Recommendation, plain: Recommendation) -> bool:
    """The same items in the same order; those whose scores differ by less than 1e-4 may swap."""
    pairs = zip(drafted.items, plain.items, strict=True)
    return all(a.item == b.item or abs(a.score - b.score) < 1e-4 for a, b in pairs)


def calls(
    contestants: Contestants, options: Namespace, users: Sequence[str], histories: Sequence[Sequence[str]]
) -> list[dict[str, object]]:
    """Target calls of every drafter and shape: a row for each, the K side by side."""
    loops = contestants.fixed(options.shapes, 16)
    result: list[dict[str, object]] = [{"drafter": name} for name in loops]
    for k in options.top_k:
        plain: list[Recommendation] = []
        for row, (name, loop) in zip(result, loops.items(), strict=True):
            loop = loop.variant(loop.planning, 16)
            lists = loop.recommend(histories, k, users=users)
            plain = plain or lists
            wrong = sum(not same(a, b) for a, b in zip(lists, plain, strict=True))
            if wrong:
                raise AssertionError(f"{name}, K = {k}: {wrong} lists differ from plain beam search")
            stats = loop.stats
            row[f"calls_{k}"], row[f"nodes_{k}"] = (
                stats.target_calls / stats.requests, stats.nodes_evaluated / stats.requests,
            )  # fmt: skip
            row[f"acceptance_{k}"], row[f"missed_{k}"] = stats.acceptance(), stats.rejections
    print(f"\n{len(histories)} users, every list that of plain beam search; target calls a user (nodes):\n")
    cells = [
        [row["drafter"], *(f"{row[f'calls_{k}']:.3f} ({row[f'nodes_{k}']:.0f})" for k in options.top_k)]
        for row in result
    ]
    print_table(["drafter", *(f"K = {k}" for k in options.top_k)], cells)
    return result


def times(contestants: Contestants, options: Namespace, histories: Sequence[list[str]]) -> list[dict[str, object]]:
    """Users a second, all contestants taking turns."""
    result = []
    for batch in options.batches:
        loops = contestants.fixed([TIMED_SHAPE], batch) | contestants.auto(batch)
        groups = [list(histories[i : i + batch]) for i in range(0, len(histories) - batch + 1, batch)]
        for k in options.top_k:
            serving = {name: partial(loop.recommend, k=k) for name, loop in loops.items()}
            medians = turns(serving, groups, f"K={k}, batch {batch}")
            result.append({"batch": batch, "k": k, "milliseconds": medians})
    names = list(result[0]["milliseconds"])
    for batch in options.batches:
        print(f"\nbatch {batch}, {options.threads} threads, {len(histories)} users: users a second (ms a user):\n")
        of_batch = [row["milliseconds"] for row in result if row["batch"] == batch]
        rows = [[name, *(f"{1000 / ms[name]:.0f} ({ms[name]:.2f})" for ms in of_batch)] for name in names]
        print_table(["drafter", *(f"K = {k}" for k in options.top_k)], rows)
    return result


def add_options(parser: ArgumentParser) -> None:
    """What this benchmark has beside the options of all."""
    parser.add_argument("--pool", type=Path, help="a pool of the dataset's histories; made there if absent")
    parser.add_argument("--shapes", type=shape, nargs="+", default=[(40, 3), (80, 3), (150, 3)], help="for the calls")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="for the times")
    parser.add_argument("--timed-users", type=int, default=160)
    parser.add_argument("--only", choices=["calls", "times"])


def main() -> None:
    options = arguments(__doc__, users=1000, more=add_options)
    bundle = Bundle.open(options.bundle)
    options.engine, options.threads = options.engine or default_engine(bundle), options.threads or available_threads()
    pool = pool_of(options.data, options.pool)
    users, histories, _ = real_users(options.data)
    order = np.random.default_rng(0).permutation(len(users))
    chosen, timed = order[: options.users], order[: options.timed_users]
    contestants, result = Contestants(bundle, pool, options), {}
    if options.only != "times":
        result["calls"] = calls(contestants, options, [users[i] for i in chosen], [histories[i] for i in chosen])
    if options.only != "calls":
        contestants.tune([histories[i] for i in order[-256:]], options.top_k)
        ordered = sorted((histories[i] for i in timed), key=len)
        result["times"] = times(contestants, options, ordered)
    dump(options.output, result)


if __name__ == "__main__":
    main()
