"""How long calls and the host's work really take, seen while serving, beside what is believed of them."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple, final

import numpy as np

from ..stats import Call
from ..types import Float64
from .costs import CallCosts
from .plans import Paces

REMEMBERED = 15  # batches whose median is the pace: one that was disturbed says nothing
SLOWEST_HOST = 4.0  # a clock counts what other processes take as well, and the host is where it shows most
RECALLED = 3  # batches that paces of an earlier process stand for: four new ones outvote them
LEAST_MS = 1e-6  # of believed work, below which a ratio says nothing


class Work(NamedTuple):
    """What a batch's calls are believed to take, in milliseconds, and what their engines really took."""

    believed: dict[str, float]  # by role
    real: dict[str, float]
    host: dict[str, float]  # believed, beside each role's

    def at(self, paces: Paces) -> float:
        """What it should take at some paces; the host's is the draft's alone, see `Paces`."""
        engines = sum(getattr(paces, role) * milliseconds for role, milliseconds in self.believed.items())
        return float(engines + self.host.get("target", 0.0) + paces.host * self.host.get("draft", 0.0))


@final
class PaceKeeper:
    """Keeps the median, over some batches, of real over believed time."""

    def __init__(self, target: CallCosts, draft: CallCosts | None) -> None:
        self._costs = {"target": target} | ({} if draft is None else {"draft": draft})
        self._ratios: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self.paces = Paces()
        self.plain = 1.0  # plain batches' calls over those that were foreseen

    def work(self, calls: Sequence[Call]) -> Work:
        """What the calls of one batch are believed to take."""
        believed, real, host = dict[str, float](), dict[str, float](), dict[str, float]()
        for role, costs in self._costs.items():
            mine = [call for call in calls if call.role == role]
            pool = [call for call in calls if call.role == "pool"] if role == "draft" else []
            if mine or pool:  # where both guess, a level's cost is that of both, told of once
                batch, past, new, prompt = _columns(mine or pool)
                believed[role] = float(costs.of_engine(batch, past, new).sum())
                real[role] = 1000 * sum(call.seconds for call in (*mine, *pool))
                host[role] = float(costs.of_host(batch, new, prompt).sum())
        return Work(believed, real, host)

    def saw(self, work: Work, milliseconds: float, plain: float | None) -> None:
        """A batch took so long in all; plain: its work over what was foreseen, if nothing was evaluated ahead."""
        for role, believed in work.believed.items():
            self._add(role, work.real[role], believed)
        self._add("host", milliseconds - sum(work.real.values()), sum(work.host.values()))
        if plain is not None:
            self._add("plain", plain, 1.0)
        self.plain = median(self._ratios.get("plain", [1.0]))
        self._settle()

    def known(self) -> dict[str, float]:
        """What is kept for another process: the paces that were seen."""
        return {name: median(ratios) for name, ratios in self._ratios.items() if name != "plain"}

    def recall(self, known: Mapping[str, float]) -> None:
        """Begin with what an earlier process knew."""
        for name in known.keys() & {*self._costs, "host"}:
            self._ratios[name].extend([known[name]] * RECALLED)
        self._settle()

    def _settle(self) -> None:
        known = self.known()
        known["host"] = min(known.get("host", 1.0), SLOWEST_HOST)
        self.paces = Paces(**known)

    def _add(self, name: str, real: float, believed: float) -> None:
        if believed > LEAST_MS and real > 0:
            self._ratios[name].append(real / believed)


def _columns(calls: Sequence[Call]) -> Float64:
    """[4, n] batch, cached tokens, new ones, and those of the prompt."""
    return np.array([(call.batch, call.past, call.new, call.prompt) for call in calls], np.float64).T
