"""Threads of target and draft: pools of their own, one that both share, or one thread; their calls, in turns.

Run: python -m benchmarks.speed.threads [--rounds 100] [--batch-size 1 8] [--bundle DIR]
Two patterns of calls: `plain`, a prompt of 50 tokens and three calls of 20 nodes of the target; `drafted`, a prompt and
two calls of 20 nodes of the draft before a prompt with 20 nodes behind it and a call of 20 nodes of the target. A
shared pool is a process's, for good, so each contestant is a process of its own; they take turns, one request each, and
an idle one sleeps. What all ran meanwhile is said: on a busy machine only processor time tells, and of that spinning is
a part.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep

from tqdm import tqdm

from benchmarks.shared import PAUSE, arguments, dump, print_table
from benchmarks.speed.workers import busy
from specbeam.engines.base import Engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.bundle.model import ModelBundle
from specbeam.engines.latency import call, random_tokens
from specbeam.engines.registry import chosen_threads, load_engine
from specbeam.runtime.runs.workers import Worker

PROMPT, NODES = 50, 20
WARM_UP = 5
PATTERNS = {  # of each model in turn: new tokens of its calls
    "plain": [("target", [PROMPT, NODES, NODES, NODES])],
    "drafted": [("draft", [PROMPT, NODES, NODES]), ("target", [PROMPT + NODES, NODES])],
}
Timed = tuple[float, float]  # milliseconds, and of the processor


@dataclass(frozen=True)
class Contestant:
    """What one process opens."""

    bundle: Path
    engine: str | None
    threads: int
    shared: bool

    def __call__(self) -> Callable[[tuple[str, int]], Timed]:
        if self.shared:
            from specbeam.engines.onnxruntime.threads import share_threads

            share_threads(self.threads)
        bundle = Bundle.open(self.bundle)
        name = self.engine or bundle.engine_names()[0]
        engines = {role: load_engine(bundle, role, name, threads=self.threads) for role in ("target", "draft")}
        return lambda asked: timed(bundle, engines, *asked)


def timed(bundle: ModelBundle, engines: dict[str, Engine], pattern: str, batch: int) -> Timed:
    """One request's calls."""
    sleep(PAUSE)
    start, processor = perf_counter(), process_time()
    for role, sizes in PATTERNS[pattern]:
        engine, facts = engines[role], bundle.facts(role)
        cache, past = engine.new_cache(batch), 0
        for new in sizes:
            engine.forward(call(random_tokens(facts, past, new, batch), past, cache, NODES), cache)
            past = past or PROMPT
    return 1000 * (perf_counter() - start), 1000 * (process_time() - processor)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])


def main() -> None:
    options = arguments(__doc__, users=None, more=add_options)
    threads = chosen_threads(options.threads)
    sides = {"own": (threads, False), "shared": (threads, True), "one thread": (1, False)}
    workers = {
        name: Worker[tuple[str, int], Timed](Contestant(options.bundle, options.engine, *side))
        for name, side in sides.items()
    }
    rows, result = [], []
    try:
        for worker in workers.values():
            worker.opened()
        for batch in options.batch_size:
            for pattern in PATTERNS:
                times: dict[str, list[Timed]] = {name: [] for name in workers}
                start, before = perf_counter(), busy()
                for _ in tqdm(range(WARM_UP + options.rounds), desc=f"{pattern}, {batch}", disable=None, leave=False):
                    for name, worker in workers.items():
                        worker.give(0, (pattern, batch))
                        times[name].append(worker.result()[1])
                load = (busy() - before) / (perf_counter() - start)
                kept = {name: each[WARM_UP:] for name, each in times.items()}
                for name, each in kept.items():
                    ratio = median(a / b for (a, _), (b, _) in zip(each, kept["own"], strict=True))
                    rows.append(
                        [pattern, batch, name, *(median(part) for part in zip(*each, strict=True)), ratio, load]
                    )
                result.append({"pattern": pattern, "batch": batch, "processors_busy": load, "milliseconds": kept})
    finally:
        for worker in workers.values():
            worker.end()
    print_table(["calls", "batch", "threads", "ms", "processor ms", "over own", "processors busy"], rows)
    dump(options.output, result)


if __name__ == "__main__":
    from benchmarks.speed import threads  # by its name: other processes know no `__main__`

    threads.main()
