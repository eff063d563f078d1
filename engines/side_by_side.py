"""How fast an engine is beside another one of its bundle: both timed in turns, now and here."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import exp, log
from statistics import mean, median
from time import perf_counter

from ..catalog.errors import SpecBeamError
from .base import Engine
from .bundle.facts import EngineFacts, Limits, ModelFacts
from .bundle.model import ModelBundle
from .latency import ROWS, time_call
from .registry import load_engine

SECONDS = 1.5  # that timing may take, engines loaded
ROUNDS = 7  # at most
SLOWEST_MS = 300  # of a round by either's own record: slower engines, which are large, are not loaded side by side
SAME = 0.05  # differences up to here say nothing
CALLS = (0, 80), (80, 40)  # a prompt, and nodes on one: cached and at most so many new tokens
BATCHES = (1, 8)

Shape = tuple[int, int, int]  # batch, cached and new tokens


@dataclass(frozen=True)
class Beside:
    """The target's calls of an engine beside those of another, which was the default until now."""

    name: str
    reference: str
    milliseconds: dict[Shape, tuple[float, float]]  # of the engine's calls and of the reference's
    now: bool  # False: by what each measured when it was built

    @property
    def speed(self) -> float:
        """How many times as fast as the reference: the geometric mean of all calls."""
        return exp(mean(log(theirs / own) for own, theirs in self.milliseconds.values()))

    def described(self) -> str:
        """Times, and a verdict."""
        verdict = (
            "faster here" if self.speed > 1 + SAME else "slower here" if self.speed < 1 - SAME else "no difference"
        )
        how = "timed now, in turns" if self.now else "as measured when each was built"
        lines = [f"{self.name}: {self.speed:.2f} times the speed of the default {self.reference}: {verdict} ({how})"]
        for (batch, past, new), (own, theirs) in self.milliseconds.items():
            what = f"{new} nodes on {past} tokens" if past else f"a prompt of {new} tokens"
            lines.append(f"  batch {batch}, {what}: {own:.2f} ms beside {theirs:.2f} ms")
        return "\n".join(lines)


def beside(bundle: ModelBundle, name: str, reference: str, *, threads: int) -> Beside | None:
    """Compare two engines of a bundle by calls that both have a record of; None where there is none.

    Where a call takes long, or one of the two cannot be opened here, the records stand for what is not timed.
    """
    both = bundle.engine_facts(name), bundle.engine_facts(reference)
    own, theirs = map(_recorded, both)
    recorded = {shape: (own[shape], theirs[shape]) for shape in _looked_at(own.keys() & theirs.keys())}
    if not recorded:
        return None
    if max(map(sum, zip(*recorded.values(), strict=True))) <= SLOWEST_MS:
        with suppress(SpecBeamError):  # of another machine, or another version
            scoring = bundle.manifest.scoring
            engines = [
                load_engine(bundle, "target", each, threads=threads, scoring=scoring) for each in (name, reference)
            ]
            rows = min([ROWS, *(most.max_nodes for facts in both if (most := _limits(facts)))])
            return Beside(name, reference, _timed(engines, bundle.facts("target"), list(recorded), rows), True)
    return Beside(name, reference, recorded, False)


def _recorded(facts: EngineFacts) -> dict[Shape, float]:
    """The target's milliseconds by call, as measured when it was built; not those that were interpolated."""
    points = [point for point in facts.roles["target"].latency if not point.interpolated]
    return {(point.batch, point.past, point.new): point.milliseconds for point in points}


def _limits(facts: EngineFacts) -> Limits | None:
    plan = facts.roles["target"].tensorrt
    return None if plan is None else plan.limits


def _looked_at(shapes: Collection[Shape]) -> list[Shape]:
    """Of the calls that both have a record of, the largest prompt and the most nodes on one, at each batch size."""
    found = []
    for batch, (cached, most) in product(BATCHES, CALLS):
        like = [shape for shape in shapes if shape[:2] == (batch, cached) and shape[2] <= most]
        found += [max(like)] if like else []
    return found


def _timed(
    engines: Sequence[Engine], facts: ModelFacts, shapes: Sequence[Shape], rows: int
) -> dict[Shape, tuple[float, float]]:
    """Median milliseconds of both engines' calls, the two taking turns."""
    times: dict[Shape, tuple[list[float], list[float]]] = {shape: ([], []) for shape in shapes}
    start = perf_counter()
    for turn in range(ROUNDS):
        for shape, which in product(shapes, (0, 1) if turn % 2 else (1, 0)):
            times[shape][which].append(time_call(engines[which], facts, *shape, repeats=1, rows=rows))
        if perf_counter() - start > SECONDS:
            break
    return {shape: (median(own), median(theirs)) for shape, (own, theirs) in times.items()}
