"""How long calls and the host's work really take, seen while serving, beside what is believed of them."""

from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple, final

import numpy as np

from ..stats import Call
from ..types import Float64
from .costs import EVEN, SIZES, CallCosts, Sized, sizes
from .plans import Paces

REMEMBERED = 15  # batches whose median is the pace: one that was disturbed says nothing
FEWEST = 2  # batches that a pace of calls is known by
SLOWEST_HOST = 4.0  # a clock counts what other processes take as well, and the host is where it shows most
RECALLED = 3  # batches that paces of an earlier process stand for: four new ones outvote them
LEAST_MS = 1e-6  # of believed work, below which a ratio says nothing


class RoleWork(NamedTuple):
    """What the calls of one role are believed to take, and took, in milliseconds."""

    believed: Float64  # [SIZES] in the engine, by the size of the calls
    real: Float64  # [SIZES]
    host: float  # believed, beside the engine


class Work(NamedTuple):
    """What the calls of one batch are believed to take, and took."""

    roles: dict[str, RoleWork]

    def at(self, paces: Paces) -> float:
        """Milliseconds it should take at some paces; the host's is the draft's alone, see `Paces`."""
        engines = sum(float(np.dot(work.believed, getattr(paces, role))) for role, work in self.roles.items())
        hosts = (work.host * (paces.host if role == "draft" else 1.0) for role, work in self.roles.items())
        return engines + sum(hosts)


@final
class PaceKeeper:
    """Keeps the median, over some batches, of real over believed time.

    Of calls, one for every size: where an engine was timed on a busy machine, or with other threads, some sizes are
    further from what is believed than others, and what pays depends on that.
    """

    def __init__(self, target: CallCosts, draft: CallCosts | None) -> None:
        self._costs = {"target": target} | ({} if draft is None else {"draft": draft})
        self._calls = {role: [_ratios() for _ in range(SIZES)] for role in self._costs}
        self._host, self._plain = _ratios(), _ratios()
        self.paces = Paces()
        self.plain = 1.0  # plain batches' calls over those that were foreseen

    def work(self, calls: Sequence[Call]) -> Work:
        """What the calls of one batch are believed to take."""
        found = dict[str, RoleWork]()
        for role, costs in self._costs.items():
            mine = [call for call in calls if call.role == role]
            pool = [call for call in calls if call.role == "pool"] if role == "draft" else []
            if mine or pool:  # where both guess, a level's cost is that of both, told of once
                batch, past, new, prompt = _columns(mine or pool)
                real = _by_size([*mine, *pool], 1000 * np.array([call.seconds for call in (*mine, *pool)]))
                believed = _by_size(mine or pool, costs.of_engine(batch, past, new))
                found[role] = RoleWork(believed, real, float(costs.of_host(batch, new, prompt).sum()))
        return Work(found)

    def saw(self, work: Work, milliseconds: float, plain: Work | None) -> None:
        """A batch took so long in all; plain: what was foreseen, if nothing was evaluated ahead."""
        for role, (believed, real, _) in work.roles.items():
            for size in np.flatnonzero((believed > LEAST_MS) & (real > 0)).tolist():
                self._calls[role][size].append(float(real[size] / believed[size]))
        engines = float(sum(each.real.sum() for each in work.roles.values()))
        host = sum(each.host for each in work.roles.values())
        if host > LEAST_MS and milliseconds > engines:
            self._host.append((milliseconds - engines) / host)
        self._settle()
        if plain is not None:
            self._plain.append(work.at(self.paces) / plain.at(self.paces))
        self.plain = median(self._plain or [1.0])

    def recall(self, known: Paces) -> None:
        """Begin with what an earlier process knew."""
        for role, ratios in self._calls.items():
            for size, pace in zip(ratios, getattr(known, role), strict=True):
                size.extend([pace] * RECALLED)
        self._host.extend([known.host] * RECALLED)
        self._settle()

    def _settle(self) -> None:
        host = min(median(self._host or [1.0]), SLOWEST_HOST)
        self.paces = Paces(**{role: _known(ratios) for role, ratios in self._calls.items()}, host=host)


def _ratios() -> deque[float]:
    return deque(maxlen=REMEMBERED)


def _known(ratios: Sequence[Sequence[float]]) -> Sized:
    """The median of every size; of sizes that nobody saw, what those next to them say."""
    seen = [size for size, each in enumerate(ratios) if len(each) >= FEWEST]
    if not seen:
        return EVEN
    return tuple(np.interp(np.arange(SIZES), seen, [median(ratios[size]) for size in seen]).tolist())


def _by_size(calls: Sequence[Call], values: Float64) -> Float64:
    """[SIZES] sums of values [n] of calls."""
    tokens = np.array([call.batch * call.new for call in calls], np.float64)
    found = np.zeros(SIZES)
    np.add.at(found, np.rint(sizes(tokens)).astype(np.int64), values)
    return found


def _columns(calls: Sequence[Call]) -> Float64:
    """[4, n] batch, cached tokens, new ones, and those of the prompt."""
    return np.array([(call.batch, call.past, call.new, call.prompt) for call in calls], np.float64).T
