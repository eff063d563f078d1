"""How much of a draft is worth its cost: as much as writes the most tokens in the time of a call."""

from abc import ABC, abstractmethod
from threading import Lock
from typing import NamedTuple

import numpy as np

from ..catalog.finite import all_finite
from ..pools.texts.branches import Branches
from ..runtime.planning.costs import CallCosts
from .types import Bool, Float64, Int64

BUCKETS, HALVES = 24, 2.0  # of branches by their share: so many, this many to each factor of two
PRIOR = 20.0  # branches that the belief weighs
TRUST = 0.7  # of a share: what is believed of a branch's chance before any was observed
RECENT = 0.02  # how much the newest call counts in means
SELDOM = 16  # where drafting has not paid, one call in so many is drafted for, to see whether it does by now


class Spent(NamedTuple):
    """Seconds of a round."""

    engine: float
    retrieval: float
    other: float


class Call(NamedTuple):
    """The size of a call of the target."""

    batch: int
    past: int  # cached slots of a request
    new: int  # tokens of a request


class TextPlanning(ABC):
    """Decides how much of a draft is sent to the target; one for all batches of a generator, shared by its threads."""

    @abstractmethod
    def look(self) -> bool:
        """Whether the coming call is to be drafted for at all."""

    @abstractmethod
    def most(self, branches: Branches, call: Call) -> int:
        """How many of every request's branches are worth it, beside the tokens that the call has anyway."""

    @abstractmethod
    def observe(self, branches: Branches, passed: Bool, call: Call, own: int, spent: Spent) -> None:
        """What came of a round.

        passed [n]: whether a branch is in a text now; call: as it was; own: its tokens of a request that were not
        drafted.
        """


class AllOfIt(TextPlanning):
    """Every draft as it comes."""

    def look(self) -> bool:
        return True

    def most(self, branches: Branches, call: Call) -> int:
        return len(branches.request)

    def observe(self, branches: Branches, passed: Bool, call: Call, own: int, spent: Spent) -> None:
        pass


class ByCost(TextPlanning):
    """As many branches as give the most tokens a millisecond.

    What a call costs was measured when the engine was built, and is corrected by what calls take here. The chance
    of a branch is how often those of about its share have passed.
    """

    def __init__(self, costs: CallCosts) -> None:
        self._costs, self._lock = costs, Lock()
        middle = 2.0 ** (-(np.arange(BUCKETS) + 0.5) / HALVES)
        self._seen = np.full(BUCKETS, PRIOR)
        self._passed = PRIOR * TRUST * middle
        self._scale, self._host = 1.0, 0.3  # of the engine's time; milliseconds of a round besides, look-up excluded
        self._turn = 0
        self._cost, self._plain = 0.0, 0.0  # of rounds that were drafted for, and of as many tokens without: means

    def look(self) -> bool:
        self._turn += 1
        return self._cost <= self._plain or self._turn % SELDOM == 0

    def most(self, branches: Branches, call: Call) -> int:
        if not len(branches.request):
            return 0
        rank = branches.rank
        sizes = np.arange(int(rank.max()) + 2)
        gain = np.bincount(rank + 1, self.chances(branches.share), len(sizes)).cumsum() + call.batch
        batch, past = np.full(len(sizes), float(call.batch)), np.full(len(sizes), float(call.past))
        engine = self._costs.of_calls(batch, past, (call.new + sizes).astype(np.float64))
        rate = gain / (self._scale * engine + self._host)
        all_finite(rate, "The expected rate of tokens", "Build the engine again: its measured times are damaged.")
        return int(rate.argmax())

    def chances(self, share: Float64) -> Float64:
        """[n] chance that branches of these shares [n] pass."""
        chance: Float64 = (self._passed / self._seen)[_bucket(share)]
        return chance

    def observe(self, branches: Branches, passed: Bool, call: Call, own: int, spent: Spent) -> None:
        with self._lock:
            self._seen += np.bincount(_bucket(branches.share), minlength=BUCKETS)
            self._passed += np.bincount(_bucket(branches.share[passed]), minlength=BUCKETS)
            expected = self._costs.milliseconds(*call)
            self._scale += RECENT * (min(1000 * spent.engine / expected, 10.0) - self._scale)
            self._host += RECENT * (1000 * spent.other - self._host)
            if spent.retrieval and own == 1:  # later calls than the prompts'
                plain = self._scale * self._costs.milliseconds(call.batch, call.past, own) + self._host
                tokens = 1 + passed.sum() / call.batch  # of a request
                self._cost += RECENT * (1000 * sum(spent) - self._cost)
                self._plain += RECENT * (tokens * plain - self._plain)


def first(branches: Branches, most: int) -> Branches:
    """The first `most` branches of every request: its best ones, and a tree by themselves."""
    kept = branches.rank < most
    if kept.all():
        return branches
    number = np.append(np.cumsum(kept) - 1, -1)  # a parent of -1 stays
    return Branches(
        branches.request[kept], number[branches.parent[kept]], branches.token[kept], branches.depth[kept],
        branches.share[kept],
    )  # fmt: skip


def _bucket(share: Float64) -> Int64:
    """Which branches have about the same share: the larger, the smaller the number."""
    return np.clip((-HALVES * np.log2(share)).astype(np.int64), 0, BUCKETS - 1)
