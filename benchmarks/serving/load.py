"""Serving under load: batches in flight, gathered batches and one request at a time, in turns in one run.

Run: python -m benchmarks.serving.load [--bundle DIR] [--http] [--seconds 10] [--rounds 3] [--queue 32]
Closed loops of 1, 8 and 32 callers at K = 20 and of 32 at K = 128; then Poisson arrivals, at 50, 75, 90 and 110 % of
what each contestant served in its closed loop of 32, for those above 100 % in one right before. A turn counts once a
fifth of it is over. Latencies are from when
a request was due, and hold all turns of a cell. Users a second: of the median turn. What was refused (429,
`Overloaded`) is said as a share of what came; above capacity the queue is full from the start. p99 / p50 at 75 % stands
beside that of a queue before one server whose requests take what a lone caller's took (M/G/1), and what they take on
average (M/D/1). At the Python level callers are coroutines of the process that serves; with --http they are another
process than the server, and all connections are kept. Client and server share the machine.
"""

import argparse
import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import msgspec
import numpy as np
from tqdm import tqdm

from benchmarks.serving.contestants import add_options, in_process, over_http, ways
from benchmarks.serving.traffic import Ask, Seen, closed_loop, one_at_a_time, open_loop, percentiles
from benchmarks.shared import arguments, dump, print_table, real_users
from specbeam.engines.machine.processors import available_threads, busy, load
from specbeam.runtime.metrics import Estimate, median_estimate

HEADS = ["", "served", "K", "came/s", "users/s", "p50 ms", "p95 ms", "p99 ms", "p99/p50", "refused"]


@dataclass
class Cell:
    """One contestant in one kind of traffic, over all rounds."""

    name: str
    contestant: str
    k: int
    came: list[float] = field(default_factory=list)  # a second
    turns: list[Seen] = field(default_factory=list)
    full: list[float] = field(default_factory=list)  # users a second at capacity, of arrivals: right before each turn

    def figures(self) -> dict[str, Any]:
        """As they are written."""
        latencies = [each for turn in self.turns for each in turn.latencies]
        users, shed = np.array([turn.users_a_second for turn in self.turns]), sum(turn.shed for turn in self.turns)
        return {
            "traffic": self.name, "served": self.contestant, "k": self.k, "came_a_second": median(self.came),
            "users_a_second": median_estimate(users), "turns": users.tolist(), "requests": len(latencies),
            "refused": shed / (shed + len(latencies)), **percentiles(latencies),
        }  # fmt: skip


class Contest:
    """All contestants and all traffic, round by round."""

    def __init__(self, options: argparse.Namespace, asks: dict[str, Ask], histories: list[list[str]]) -> None:
        self._options, self._asks, self._histories = options, asks, histories
        self.cells: dict[tuple[str, str], Cell] = {}

    async def run(self) -> None:
        options = self._options
        loops = [(f"{n} callers" if n > 1 else "1 caller", n, options.k) for n in options.callers]
        loops.append((f"{options.callers[-1]} callers, K = {options.wide_k}", options.callers[-1], options.wide_k))
        turns = options.rounds * (len(loops) + len(options.loads)) * len(self._asks)
        with tqdm(total=turns, desc="turns", disable=None) as progress:
            for number in range(options.rounds):
                for name, callers, k in loops:
                    for contestant, ask in self._order(number):
                        seen = await closed_loop(ask, self._histories, k, callers, options.seconds)
                        self._keep(name, contestant, k, seen, seen.users_a_second)
                        progress.update()
                for share in options.loads:
                    for contestant, ask in self._order(number):
                        rate = share / 100 * await self._capacity(contestant, ask, afresh=share > 100)
                        waiting = options.queue + options.size if share > 100 else 0  # as it would be after a while
                        coming = open_loop(ask, self._histories, options.k, rate, options.seconds, number, waiting)
                        self._keep(f"{share} % of capacity", contestant, options.k, await coming, rate)
                        self.cells[f"{share} % of capacity", contestant].full.append(100 * rate / share)
                        progress.update()

    def _order(self, number: int) -> list[tuple[str, Ask]]:
        """Who goes first changes."""
        each = list(self._asks.items())
        return each[number % len(each) :] + each[: number % len(each)]

    def _keep(self, name: str, contestant: str, k: int, seen: Seen, came: float) -> None:
        cell = self.cells.setdefault((name, contestant), Cell(name, contestant, k))
        cell.turns.append(seen)
        cell.came.append(came)

    async def _capacity(self, contestant: str, ask: Ask, *, afresh: bool) -> float:
        """Users a second with as many callers as there are: in this round, or right now."""
        most, options = self._options.callers[-1], self._options
        if afresh:  # a shared machine's speed changes within a round
            return (await closed_loop(ask, self._histories, options.k, most, options.seconds)).users_a_second
        return self.cells[f"{most} callers", contestant].turns[-1].users_a_second

    def service(self) -> np.ndarray:
        """Seconds that a request takes alone."""
        name = next(name for name in ("one by one", *self._asks) if name in self._asks)
        return np.concatenate([turn.latencies for turn in self.cells["1 caller", name].turns])


def compared(contest: Contest) -> list[str]:
    """What the table asks for: over one by one, above capacity, at 75 %."""
    lines, cells = [], contest.cells
    names = {contestant for _, contestant in cells}
    for (name, contestant), cell in cells.items():
        if "callers" in name and contestant != "one by one" and "one by one" in names:
            alone = cells[name, "one by one"].turns
            ratios = [a.users_a_second / b.users_a_second for a, b in zip(cell.turns, alone, strict=True)]
            lines.append(f"{name}, {contestant}: {shown(median_estimate(np.array(ratios)), 2)} times one by one.")
        if name.startswith("110 %"):
            kept = [turn.users_a_second / full for turn, full in zip(cell.turns, cell.full, strict=True)]
            lines.append(
                f"{name}, {contestant}: {shown(median_estimate(np.array(kept)), 2)} of what it serves when full."
            )
    if any(name.startswith("75 %") for name, _ in cells):
        service = contest.service()
        alone = f"{one_at_a_time(service, 0.75):.1f} (M/G/1), {one_at_a_time(service.mean()[None], 0.75):.1f} (M/D/1)"
        lines.append(f"p99 / p50 of one-at-a-time queueing at 75 %: {alone}.")
    return lines


def shown(estimate: Estimate, digits: int = 1) -> str:
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def table(figures: list[dict[str, Any]]) -> None:
    print_table(HEADS, [
        [
            each["traffic"], each["served"], each["k"], each["came_a_second"],
            *(shown(each[name]) for name in ("users_a_second", "p50", "p95", "p99", "p99/p50")),
            f"{100 * each['refused']:.1f} %",
        ]
        for each in figures
    ])  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser)
    parser.add_argument("--http", action="store_true", help="`specbeam serve` in processes of their own")
    parser.add_argument("--served", nargs="+", default=["in-flight", "gathered", "one by one"])
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8, 32], help="the last ones measure capacity")
    parser.add_argument("--loads", type=int, nargs="*", default=[50, 75, 90, 110], help="%% of capacity")
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--wide-k", type=int, default=128)


async def measure(options: argparse.Namespace) -> Contest:
    histories = real_users(options.data)[1][: options.users]
    level = over_http if options.http else in_process
    async with level(options, ways(options.served, options.size, options.queue)) as asks:
        for ask in asks.values():  # shapes that are new take longer
            for k in (options.k, options.wide_k):
                await closed_loop(ask, histories, k, options.callers[-1], options.seconds / 4)
        contest = Contest(options, asks, histories)
        await contest.run()
        return contest


def main() -> None:
    options = arguments(__doc__, users=500, more=add_arguments)
    processors, began = available_threads(), load()
    with tempfile.TemporaryDirectory() as options.folder:
        contest = asyncio.run(measure(options))
    figures = [cell.figures() for cell in contest.cells.values()]
    level, ended = "over HTTP" if options.http else "in Python", load()
    print(f"{level}, {processors} processors of {os.cpu_count()}, load {began:.1f} before and {ended:.1f} after\n")
    table(figures)
    print("", *compared(contest), busy(began, processors) or "", sep="\n")
    dump(options.output, msgspec.to_builtins({
        "level": level, "processors": processors, "load": [began, ended], "size": options.size, "queue": options.queue,
        "seconds": options.seconds, "cells": figures, "told": compared(contest),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
