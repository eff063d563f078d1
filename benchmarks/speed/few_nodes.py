"""Few, cheap nodes: drafts of 4 to 20 nodes a level beside the plain loop, and what the calls alone would allow.

At K = 1 to 5 the plain loop's calls are small: a draft saves little more than what a call costs at all. Every fixed
shape, the plain loop and `auto`, which was not tuned, take turns, one user at a time. "loop" is plain's processor time
over the arm's (above 1: the arm is faster), with the sign test's interval; "calls" counts the time inside engines
alone; "all found" is arithmetic: the calls of plain over those of the shape if drafts held every node that is
needed, and the host's work cost nothing.
"""

from argparse import ArgumentParser, Namespace
from time import process_time
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.shared import WARM_UP, arguments, dump, print_table, real_users, shape
from specbeam.engines.bundle.default import default_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.latency import time_call
from specbeam.runtime import Drafting, DraftShape, EngineChoice, Recommender
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.metrics import median_estimate
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.types import Float64, Request

REPEATS = 30  # of a bare call
SHAPES = [f"{width}x{length}" for width in (4, 8, 12, 20) for length in (1, 2, 3)]


class Turn(NamedTuple):
    """What one user took."""

    processor: float  # seconds
    engines: float  # seconds inside engines, by the clock


class Calls:
    """Milliseconds of bare calls at batch 1, each timed when it is first asked for."""

    def __init__(self, loaded: Loaded, bundle: Bundle) -> None:
        self._engines = {"target": loaded.target, "draft": loaded.draft}
        self._facts = {role: bundle.facts(role) for role in self._engines}
        self._known: dict[tuple[str, int, int], float] = {}

    def __call__(self, role: str, past: int, new: int) -> float:
        key = role, past, new
        if key not in self._known:
            self._known[key] = time_call(self._engines[role], self._facts[role], 1, past, new, REPEATS)
        return self._known[key]

    def all_found(self, prompt: int, k: int, length: int, drafted: DraftShape) -> float:
        """Plain's calls over those of a shape whose drafts hold all that is needed."""
        plain = self("target", 0, prompt) + (length - 1) * self("target", prompt, k)
        total, depth, cached, need = 0.0, 0, 0, prompt
        while depth < length:
            levels = min(drafted.length, length - 1 - depth)
            if levels:
                total += self("draft", cached, need) + (levels - 1) * self("draft", prompt, drafted.width)
            total += self("target", cached, need + levels * drafted.width)
            depth, cached, need = depth + levels + 1, prompt, k
        return plain / total


def raced(arms: dict[str, Recommender], requests: list[Request], k: int) -> dict[str, list[Turn]]:
    """What every user took with every arm."""
    found: dict[str, list[Turn]] = {name: [] for name in arms}
    rng, names = np.random.default_rng(0), list(arms)
    for i, request in enumerate(tqdm([*requests[:WARM_UP], *requests], desc=f"K={k}", disable=None)):
        for name in rng.permutation(names).tolist():
            stats, start = arms[name].stats, process_time()
            before = stats.target_seconds + stats.draft_seconds
            arms[name].run([request], k)
            turn = Turn(process_time() - start, stats.target_seconds + stats.draft_seconds - before)
            if i >= WARM_UP:
                found[name].append(turn)
    return found


def arms_of(bundle: Bundle, loaded: Loaded, engine: EngineChoice) -> dict[str, Recommender]:
    """The plain loop and the shapes, on the same engines; and what is the default, not tuned."""
    plans = {"plain": FixedPlanning(None)} | {name: FixedPlanning(DraftShape(*shape(name))) for name in SHAPES}
    arms = {name: Recommender(loaded, planning=planning, batching=1) for name, planning in plans.items()}
    return arms | {"auto": Recommender.open(bundle, engine=engine, batching=1)}


def rows_of(arms: dict[str, Recommender], requests: list[Request], k: int, calls: Calls) -> list[dict[str, object]]:
    """A row a shape."""
    arms = {name: arm.variant(arm.planning, 1) for name, arm in arms.items()}  # with statistics of their own
    turns = {name: np.array(each) for name, each in raced(arms, requests, k).items()}
    prompt = int(np.median([len(request.prompt) for request in requests]))
    found = list[dict[str, object]]()
    for name in [*SHAPES, "auto"]:
        ratios: Float64 = turns["plain"] / turns[name]
        stats, length = arms[name].stats, arms[name].trie.length
        most = calls.all_found(prompt, k, length, DraftShape(*shape(name))) if name in SHAPES else None
        loop, engines = (median_estimate(column) for column in ratios.T)
        found.append({
            "k": k, "shape": name, "loop": loop.value, "low": loop.low, "high": loop.high, "calls": engines.value,
            "target calls": stats.target_calls / stats.requests, "draft calls": stats.draft_calls / stats.requests,
            "all found": most,
        })  # fmt: skip
    return found


def add_options(parser: ArgumentParser) -> None:
    parser.set_defaults(top_k=[1, 5])


def main() -> None:
    options: Namespace = arguments(__doc__, users=100, more=add_options)
    bundle = Bundle.open(options.bundle)
    name, threads = options.engine or default_engine(bundle), options.threads or 1
    loaded = Loaded.of(bundle, bundle.items(), name, Drafting(drafter="model"), threads=threads)
    arms = arms_of(bundle, loaded, EngineChoice(name, threads=threads))
    histories = real_users(options.data)[1]
    requests = [arms["plain"].encode(history) for history in histories[:: max(len(histories) // options.users, 1)]]
    calls = Calls(loaded, bundle)
    rows = [row for k in options.top_k for row in rows_of(arms, requests[: options.users], k, calls)]
    heads = ["K", "shape", "loop", "calls", "all found", "target calls", "draft calls"]
    shown = [
        [row["k"], row["shape"], "{loop:.2f} [{low:.2f}, {high:.2f}]".format(**row), *(row[head] for head in heads[3:])]
        for row in rows
    ]
    print_table(heads, shown)
    dump(options.output, rows)


if __name__ == "__main__":
    main()
