"""What a race tells: its numbers as they are written, and how they come from turns."""

from collections.abc import Mapping, Sequence

import numpy as np

from ...catalog.files import Frozen
from ...runtime.metrics import Estimate
from ...runtime.types import Float64
from ..bench import Setup
from ..figures import paces, ranking_fault
from ..settings import GENERATE, PLAIN
from .racers import Ranked, Spent
from .settings import FLOOR, RaceSettings

SCHEMA = 1
BASELINES = (PLAIN, GENERATE, FLOOR)


class Latency(Frozen, frozen=True):
    """Milliseconds of a batch, from its requests to their lists."""

    median: float
    p95: float
    p99: float


class Work(Frozen, frozen=True):
    """Means of a request."""

    target_calls: float
    draft_calls: float
    nodes: float
    milliseconds: dict[str, float]  # by what they were spent on: `PARTS`


PARTS = ("prompt", "target", "draft", "planning", "selection")


class Lane(Frozen, frozen=True):
    """One contestant at one K and batch size."""

    name: str
    k: int
    batch: int
    turns: int
    milliseconds: Estimate  # a request: the median over turns
    latency: Latency
    users_per_second: float  # over all its turns
    speedup: dict[str, Estimate]  # over each baseline that took part, the floor among them: the median of turns' ratios
    work: Work
    memory: float | None  # MB that its turns added to the process's at most; None: this system does not tell
    checked: int  # lists that were compared with the plain loop's (where it took no part, the first contestant's)
    differing: int  # of these, how many are not the same
    fault: str | None  # how the first of them differs

    @property
    def over_floor(self) -> Estimate | None:
        """How many times as long as the bare calls; None: they were not measured, or are these."""
        faster = self.speedup.get(FLOOR)
        return None if faster is None else Estimate(1 / faster.value, 1 / faster.high, 1 / faster.low)


class Sources(Frozen, frozen=True):
    """The files that histories were read from, and how; none: a program gave them."""

    histories: tuple[str, ...] = ()
    format: str | None = None
    item_base: int = 0


class Race(Frozen, frozen=True):
    """All that was measured."""

    schema: int
    setup: Setup
    settings: RaceSettings
    sources: Sources
    requests: int
    lanes: tuple[Lane, ...]
    peak_memory: float | None  # MB, of the process
    notes: tuple[str, ...]

    @property
    def differing(self) -> int:
        """Lists that are not what they must be."""
        return sum(lane.differing for lane in self.lanes)


def lanes_of(
    k: int,
    batch: int,
    seconds: Mapping[str, Float64],
    spent: Mapping[str, Sequence[Spent]],
    memory: Mapping[str, float | None],
    lists: Mapping[str, Sequence[list[Ranked] | None]],
) -> list[Lane]:
    """One cell's lanes; spent: of every turn that counts; lists: of every round, None where nothing was found."""
    found = [name for name in (PLAIN, *lists) if any(each is not None for each in lists.get(name, ()))]
    lanes = []
    for pace in paces(seconds, BASELINES, k, batch):
        own = seconds[pace.name][~np.isnan(seconds[pace.name])]
        median, p95, p99 = np.quantile(1000 * own, [0.5, 0.95, 0.99]).tolist()
        faults = _faults(lists[pace.name], lists[found[0]]) if pace.name in found and pace.name != found[0] else []
        wrong = [fault for fault in faults if fault]
        lanes.append(
            Lane(
                name=pace.name, k=k, batch=batch, turns=len(own), milliseconds=pace.milliseconds,
                latency=Latency(median=median, p95=p95, p99=p99),
                users_per_second=batch * len(own) / float(own.sum()), speedup=pace.speedup,
                work=_work(spent[pace.name], batch), memory=memory[pace.name], checked=len(faults),
                differing=len(wrong), fault=next(iter(wrong), None),
            )
        )  # fmt: skip
    return lanes


def _faults(mine: Sequence[list[Ranked] | None], theirs: Sequence[list[Ranked] | None]) -> list[str | None]:
    """Of every list of the rounds of both: how it differs, or None."""
    rounds = [(own, other) for own, other in zip(mine, theirs, strict=True) if own is not None and other is not None]
    return [ranking_fault(*pair) for own, other in rounds for pair in zip(own, other, strict=True)]


def _work(spent: Sequence[Spent], batch: int) -> Work:
    requests = batch * len(spent)
    parts = {part: 1000 * sum(getattr(each, part) for each in spent) / requests for part in PARTS}
    calls, drafts, nodes = (
        sum(getattr(each, count) for each in spent) / requests for count in ("target_calls", "draft_calls", "nodes")
    )
    return Work(target_calls=calls, draft_calls=drafts, nodes=nodes, milliseconds=parts)
