"""Where drafting pays, without a tuning: a scripted target whose call takes as long whatever its tokens.

Engines do nothing but wait (their hashes are worked out meanwhile), so that every call costs what it is said to. After
so many users, `auto` is held against the best of some fixed shapes on the users that follow, one at a time; where the
draft guesses at random, against the plain loop. The first users are served again by one that begins with what was kept,
as another process would; "until" is after how many of them ten in a row are within 5 % of the best, `auto` itself later
included. "calls" are milliseconds a user inside engines by the number of calls, which nothing disturbs; "wall" is what
a clock says, the host's work included.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import NamedTuple, final

import numpy as np
from tqdm import tqdm

from benchmarks.shared import dump, print_table
from scripted_recommender import SPEC, named
from specbeam.catalog.prompts.encoder import PromptEncoder
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.base import Engine, Float32, ForwardInputs
from specbeam.engines.bundle.facts import LatencyPoint
from specbeam.engines.cache import KVCache
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime import DraftShape, Recommender, Verification
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.acceptance import Acceptance
from specbeam.runtime.planning.costs import CallCosts
from specbeam.runtime.planning.kept import Memory, Subject
from specbeam.runtime.planning.planner import Planner
from specbeam.runtime.planning.policy import FixedPlanning, Planning

ITEMS, CODES, LEVELS = 60_000, 256, 4  # too many children of the first two levels to evaluate all of them
TARGET_MS = 20.0
MEASURED = 64  # tokens of the largest call whose time is known
HISTORY = 3  # items
ROW = 10  # users
SUBJECT = Subject(
    bundle="", engine="scripted", facts="", mode="strict", scoring="full", drafter="model", pool=None, reuse=True,
    threads=1, machine="",
)  # fmt: skip
SHAPES = [DraftShape(width, length) for length in (1, 2, 3) for width in (10, 20, 40)]


class Case(NamedTuple):
    """A draft: milliseconds of a call, and how far its guesses are from the target's (1: unrelated)."""

    milliseconds: float
    disagreement: float

    @property
    def name(self) -> str:
        return f"{'random' if self.disagreement == 1 else 'good'} draft of {self.milliseconds:g} ms"


CASES = [Case(1.0, 0.15), Case(8.0, 0.15), Case(1.0, 1.0), Case(8.0, 1.0)]


class Spent(NamedTuple):
    """[U] milliseconds of every user."""

    calls: np.ndarray
    wall: np.ndarray


@final
class Waiting(Engine):
    """A scripted engine whose calls take no less than a constant time."""

    def __init__(self, engine: ScriptedEngine, milliseconds: float) -> None:
        super().__init__(columns=engine.columns)
        self._engine, self._seconds = engine, milliseconds / 1000

    def new_cache(self, batch: int) -> KVCache:
        return self._engine.new_cache(batch)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        done = perf_counter() + self._seconds
        logprobs = self._engine.forward(inputs, cache)
        sleep(max(0.0, done - perf_counter()))
        return logprobs


def constant(milliseconds: float) -> CallCosts:
    """What an engine's latency says of calls that take as long whatever their tokens."""
    points = [(past, new) for past in (0, MEASURED) for new in (1, MEASURED)]
    return CallCosts(
        latency=tuple(LatencyPoint(batch=1, past=past, new=new, milliseconds=milliseconds) for past, new in points)
    )


def loaded(case: Case) -> Loaded:
    """The pair over a random catalog."""
    rows = np.unique(np.random.default_rng(0).integers(0, CODES, (ITEMS, LEVELS)), axis=0)
    trie = ItemTrie.build(rows)
    target, draft = (
        Waiting(ScriptedEngine(len(trie.vocabulary), seed=1, disagreement=distance, sharpness=2.0), milliseconds)
        for distance, milliseconds in ((0.0, TARGET_MS), (case.disagreement, case.milliseconds))
    )
    return Loaded(named(rows), trie, PromptEncoder(SPEC, trie.item_tokens(), 10_000), target, draft)


def planner(case: Case, parts: Loaded) -> Planner:
    return Planner(constant(TARGET_MS), constant(case.milliseconds), Acceptance(parts.trie, "full"))


def within(calls: np.ndarray, best: float) -> int | None:
    """Users until `ROW` in a row take at most 1.05 times the best; None: they never do."""
    means = np.convolve(calls, np.full(ROW, 1 / ROW), mode="valid")
    return next(iter(np.flatnonzero(means <= 1.05 * best).tolist()), None)


def served(parts: Loaded, case: Case, planning: Planning, users: range, k: int) -> Spent:
    """A new recommender's milliseconds for these users, one after another."""
    recommender = Recommender(parts, planning=planning, verification=Verification(scoring="full"), batching=1)
    ids, calls, wall = recommender.catalog.item_ids, list[float](), list[float]()
    for user in users:
        chosen = np.random.default_rng(user).integers(0, len(ids), HISTORY)
        start = perf_counter()
        (answer,) = recommender.recommend([[ids[i] for i in chosen]], k)
        wall.append(1000 * (perf_counter() - start))
        calls.append(TARGET_MS * answer.stats.target_calls + case.milliseconds * answer.stats.draft_calls)
    return Spent(np.array(calls), np.array(wall))


def processes(case: Case, parts: Loaded, options: Namespace) -> tuple[Spent, Spent]:
    """`auto` from the first user on; and for the first users again, by one that begins with what the other kept."""
    first, second = planner(case, parts), planner(case, parts)
    with TemporaryDirectory() as folder:
        memory = Memory(first, SUBJECT, Path(folder))
        spent = served(parts, case, first, range(options.after + options.users), options.k)
        if fault := memory.keep():
            raise SystemExit(fault)
        Memory(second, SUBJECT, Path(folder))
    return spent, served(parts, case, second, range(options.after), options.k)


def measure(case: Case, options: Namespace) -> tuple[list[object], dict[str, object]]:
    """The line of one case, and the same as JSON."""
    parts, after = loaded(case), range(options.after, options.after + options.users)
    auto, again = processes(case, parts, options)
    fixed = {"plain": served(parts, case, FixedPlanning(None), after, options.k)}
    if case.disagreement < 1:
        fixed |= {
            f"{shape.width}x{shape.length}": served(parts, case, FixedPlanning(shape), after, options.k)
            for shape in tqdm(SHAPES, desc=case.name, disable=None, leave=False)
        }
    best = min(fixed, key=lambda name: float(fixed[name].calls.mean()))
    late, rival = (Spent(*(each[-options.users :] for each in spent)) for spent in (auto, fixed[best]))
    ratios = [float(own.mean() / other.mean()) for own, other in zip(late, rival, strict=True)]
    firsts = [each.calls[: options.after] for each in (auto, again)]
    until = [within(calls, float(min(each.calls.mean() for each in (rival, late)))) for calls in firsts]
    row: list[object] = [case.name, *(f"{calls.mean():.1f} ({n})" for calls, n in zip(firsts, until, strict=True))]
    row += [f"{late.calls.mean():.1f}", f"{best}: {rival.calls.mean():.1f}", f"{fixed['plain'].calls.mean():.1f}"]
    row += [*(f"{ratio:.3f}" for ratio in ratios), "yes" if ratios[0] <= 1.05 else "NO"]
    facts = {
        "case": case._asdict(), "first": [float(calls.mean()) for calls in firsts], "until": until,
        "auto": float(late.calls.mean()), "best": best, "ratio": ratios[0], "wall_ratio": ratios[1],
        "fixed": {name: float(spent.calls.mean()) for name, spent in fixed.items()},
    }  # fmt: skip
    return row, facts


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--after", type=int, default=100, help="users that auto may learn from (default: %(default)s)")
    parser.add_argument("--users", type=int, default=100, help="that are compared then (default: %(default)s)")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--output", help="write the result as JSON")
    options = parser.parse_args()
    rows, result = list[list[object]](), list[object]()
    for case in CASES:
        row, facts = measure(case, options)
        rows.append(row)
        result.append(facts)
    print(f"K = {options.k}, a target of {TARGET_MS:g} ms a call, ms a user; at most 1.05 times the best other:\n")
    begins = [f"{which}, first {options.after} (until)" for which in ("auto", "second process")]
    heads = ["", *begins, "auto then", "best fixed", "plain", "calls", "wall", "within"]
    print_table(heads, rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
