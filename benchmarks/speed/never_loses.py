"""`auto`, cold and never tuned, beside the plain loop: 24 cells that hold every extreme, from the first user on.

Every cell opens both anew, so that nothing is known of an earlier one; nor is anything kept in the user's cache, or
taken from there (`Drafting.keep` is off). They take turns batch by batch in one process. What is compared is processor
time, which other work on the machine hardly changes; by default of one thread, because threads that wait for another
call spin. The pooled ratio weighs every cell by its time, the mean ratio (geometric) counts cells alike; intervals are
bootstrapped over the batches of each cell.
"""

from argparse import Namespace
from dataclasses import replace
from itertools import product
from time import process_time
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.shared import dump, print_table, ranking_fault
from benchmarks.speed.made_pairs import made_pair, made_parser
from specbeam.engines.bundle.items import Bundle
from specbeam.runtime import EngineChoice, Recommender
from specbeam.runtime.metrics import Estimate, estimate
from specbeam.runtime.planning.budget import Effort
from specbeam.runtime.planning.planner import Planner
from specbeam.runtime.types import Float64, Request

FIRST = 50  # users at batch 1 that are told by themselves
FEWEST = 6  # batches of a cell
RESAMPLES = 2000
ARMS = ("plain", "auto")


class Cell(NamedTuple):
    """What is asked for."""

    k: int
    batch: int
    prompt: int  # tokens
    levels: int

    @property
    def name(self) -> str:
        return f"k{self.k}-b{self.batch}-p{self.prompt}-l{self.levels}"


CORNERS = [Cell(*corner) for corner in product((1, 20), (1, 32), (20, 400), (3, 32))]
BETWEEN = [
    Cell(5, 1, 80, 4), Cell(10, 1, 80, 8), Cell(20, 1, 80, 4), Cell(5, 8, 80, 16), Cell(10, 8, 80, 4),
    Cell(20, 8, 20, 8), Cell(10, 32, 80, 16), Cell(1, 8, 400, 4),
]  # fmt: skip
CELLS = {cell.name: cell for cell in CORNERS + BETWEEN}


def opened(bundle: Bundle, cell: Cell, options: Namespace) -> dict[str, Recommender]:
    """Both arms, each with engines of its own."""
    engine = EngineChoice(threads=options.threads)
    drafters = {"plain": "none", "auto": "none" if options.noise else None}
    return {arm: Recommender.open(bundle, engine=engine, batching=cell.batch, drafting=drafters[arm]) for arm in ARMS}


def requests(recommender: Recommender, cell: Cell, rng: np.random.Generator) -> list[Request]:
    """One batch of random histories, whose prompts are cut to the length that is asked for."""
    ids, count = recommender.catalog.item_ids, cell.prompt // cell.levels + 1
    encoded = [recommender.encode([ids[i] for i in rng.integers(0, len(ids), count)]) for _ in range(cell.batch)]
    return [replace(request, prompt=request.prompt[: cell.prompt]) for request in encoded]


def measure(bundle: Bundle, cell: Cell, options: Namespace) -> tuple[Float64, float]:
    """[batches, 2] processor seconds of plain and of auto, and planning's share of auto's time by the clock.

    Raises SystemExit where their lists differ.
    """
    arms, rng, seconds = opened(bundle, cell, options), np.random.default_rng(0), list[list[float]]()
    most = max(1, (options.users or 10**9) // cell.batch)
    least = min(most, max(FEWEST, FIRST if cell.batch == 1 else 0))
    while len(seconds) < least or (len(seconds) < most and np.sum(seconds) < options.seconds):
        group, spent, lists = requests(arms["plain"], cell, rng), [0.0, 0.0], {}
        for i in rng.permutation(2).tolist():
            start = process_time()
            lists[ARMS[i]] = arms[ARMS[i]].run(group, cell.k)
            spent[i] = process_time() - start
        seconds.append(spent)
        for auto, plain in zip(lists["auto"], lists["plain"], strict=True):
            ranked = ([(item.item, item.score) for item in each.items] for each in (auto, plain))
            if fault := ranking_fault(*ranked):
                raise SystemExit(f"{cell.name}: the lists differ: {fault}")
    effort = arms["auto"].planning.effort if isinstance(arms["auto"].planning, Planner) else Effort()
    return np.array(seconds), effort.planning / max(effort.serving, 1e-9)


def resampled(times: Float64, rng: np.random.Generator) -> Float64:
    """[S, 2] sums over batches drawn with replacement, of times [batches, 2]."""
    return np.stack([times[rng.integers(0, len(times), len(times))].sum(axis=0) for _ in range(RESAMPLES)])


def ratio(cells: list[Float64]) -> tuple[Estimate, Estimate]:
    """Auto over plain of cells' times: pooled, and the geometric mean of the cells' ratios."""
    rng = np.random.default_rng(0)
    drawn, sums = np.stack([resampled(times, rng) for times in cells]), np.stack([t.sum(axis=0) for t in cells])
    pooled, means = (
        [total(each[..., 1], each[..., 0]) for each in (sums[:, None], drawn)]
        for total in (
            lambda auto, plain: auto.sum(axis=0) / plain.sum(axis=0),
            lambda auto, plain: np.exp(np.log(auto / plain).mean(axis=0)),
        )
    )
    return estimate(pooled[0][0], pooled[1]), estimate(means[0][0], means[1])


def shown(number: Estimate) -> str:
    return f"{number.value:.3f} [{number.low:.3f}, {number.high:.3f}]"


def report(times: dict[str, Float64], planning: dict[str, float], options: Namespace) -> None:
    """The table, the summary, and JSON if asked for."""
    rows, cells = list[list[object]](), dict[str, object]()
    for name, each in times.items():
        own, _ = ratio([each])
        milliseconds = 1000 * each.sum(axis=0) / (len(each) * CELLS[name].batch)
        over = "" if own.value <= 1.05 else "OVER 1.05"
        share = f"{100 * planning[name]:.2f} %"
        rows.append([name, len(each), *(f"{ms:.2f}" for ms in milliseconds), shown(own), share, over])
        cells[name] = {
            "batches": len(each),
            "milliseconds": milliseconds.tolist(),
            "ratio": own,
            "planning": planning[name],
        }
    print_table(["cell", "batches", "plain", "auto", "auto / plain", "planning", ""], rows)
    pooled, mean = ratio(list(times.values()))
    facts = {"pooled": pooled, "mean": mean}
    print(f"\npooled {shown(pooled)}; mean of cells {shown(mean)}")
    single = {name: each[:FIRST] for name, each in times.items() if CELLS[name].batch == 1}
    if single:
        facts["first"], first_mean = ratio(list(single.values()))
        worst = max(single, key=lambda name: float(np.divide(*single[name].sum(axis=0)[::-1])))
        told = f"pooled {shown(facts['first'])}, mean {shown(first_mean)}"
        print(f"first {FIRST} users at batch 1: {told}; worst {worst} {shown(ratio([single[worst]])[0])}")
    dump(options.output, _plain({"threads": options.threads, **facts, "cells": cells}))


def _plain(value: object) -> object:
    """Estimates as dictionaries, all the way down."""
    if isinstance(value, Estimate):
        return {"value": value.value, "low": value.low, "high": value.high}
    return {name: _plain(part) for name, part in value.items()} if isinstance(value, dict) else value


def parsed() -> Namespace:
    parser = made_parser(__doc__)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS), metavar="CELL",
                        help=f"some of: {', '.join(CELLS)}")  # fmt: skip
    parser.add_argument("--users", type=int, help="of a cell at most")
    parser.add_argument(
        "--seconds",
        type=float,
        default=15,
        help="of processor time a cell, at least six batches (default: %(default)s)",
    )
    parser.add_argument("--noise", action="store_true", help="the plain loop in both arms: what the method itself errs")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    chosen = [CELLS[name] for name in options.cells]
    bundles = {
        levels: made_pair(options.work, levels, options.threads)
        for levels in tqdm(sorted({cell.levels for cell in chosen}), desc="pairs", disable=None)
    }
    # What a process does once is nobody's share.
    measure(bundles[chosen[0].levels], chosen[0], Namespace(**{**vars(options), "users": 2 * chosen[0].batch}))
    times, planning = dict[str, Float64](), dict[str, float]()
    for cell in tqdm(chosen, desc="cells", disable=None):
        times[cell.name], planning[cell.name] = measure(bundles[cell.levels], cell, options)
    report(times, planning, options)


if __name__ == "__main__":
    main()
