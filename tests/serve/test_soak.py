"""Ten thousand requests of 32 threads, some cancelled, late or wrong; a hundred thousand in the same memory."""

import os
import random
from collections import Counter
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from serving_cases import PATIENCE, POLICIES, Told, assert_answers, serving
from specbeam.catalog.errors import SpecBeamError
from specbeam.runtime import Recommendation, Recommender
from specbeam.serve import AsyncRecommender, DeadlinePassed, Overloaded, Served
from tiny_bundle import Tiny

pytestmark = pytest.mark.services
every_policy = pytest.mark.parametrize("policy", POLICIES)
REQUESTS, THREADS = 10_000, 32
MANY, SETTLED, FLAT = 100_000, 10_000, 1.05
WRONG: list[dict[str, Any]] = [
    {"history": []}, {"history": ["nothing"]}, {"history": [None]}, {"history": "3"}, {"k": 0}, {"k": "five"},
    {"k": 10**30}, {"item_filter": 3}, {"timeout": float("inf")}, {"priority": 0.5}, {"verification": 1},
]  # fmt: skip


class Client:
    """One thread's requests, and what became of each."""

    def __init__(self, served: AsyncRecommender, known: dict[tuple[str, ...], Recommendation], seed: int) -> None:
        self._served, self._known, self._random = served, list(known.items()), random.Random(seed)
        self.became = Counter[str]()

    def ask(self, requests: int) -> "Counter[str]":
        for _ in range(requests):
            history, expected = self._random.choice(self._known)
            kind = self._random.choices(["plain", "cancelled", "late", "wrong"], [6, 2, 1, 1])[0]
            if kind == "wrong":
                self._wrong(history)
            else:
                self._right(kind, history, expected)
        return self.became

    def _wrong(self, history: tuple[str, ...]) -> None:
        with pytest.raises(SpecBeamError) as error:
            self._served.submit(**({"history": history, "k": 5} | self._random.choice(WRONG)))
        assert not isinstance(error.value, Overloaded)
        self.became["wrong"] += 1

    def _right(self, kind: str, history: tuple[str, ...], expected: Recommendation) -> None:
        timeout = self._random.uniform(0, 0.02) if kind == "late" else None
        try:
            future = self._served.submit(history, k=5, timeout=timeout, priority=self._random.randint(-1, 1))
        except Overloaded:
            self.became["refused"] += 1
            return
        told = list[Future[Served]]()
        future.add_done_callback(told.append)
        if kind == "cancelled" and self._random.random() < 0.8:
            future.cancel()
        try:
            assert_answers(future.result(PATIENCE).recommendation, expected)
            self.became["answered"] += 1
        except CancelledError:
            assert kind == "cancelled"
            self.became["cancelled"] += 1
        except DeadlinePassed:
            assert kind == "late"
            self.became["late"] += 1
        assert len(told) == 1


@every_policy
def test_none_of_ten_thousand_is_lost_doubled_or_mixed_up(policy: str, tiny: Tiny) -> None:
    recommender, told = Recommender.open(tiny.bundle), Told()
    histories = [(a, b) for a, b in combinations(tiny.item_ids, 2)][::5]
    known = {each: recommender.recommend([each], k=5)[0] for each in histories}
    with serving(recommender, policy, observer=told, size=8, queue=24) as served:
        clients = [Client(served, known, seed) for seed in range(THREADS)]
        with ThreadPoolExecutor(THREADS) as pool:
            became = sum(pool.map(lambda each: each.ask(REQUESTS // THREADS), clients), Counter[str]())
    assert became.total() == THREADS * (REQUESTS // THREADS)
    assert min(became[kind] for kind in ("answered", "cancelled", "late", "wrong", "refused")) > 0, became
    outcomes = Counter(told.outcomes)
    assert outcomes["failed"] == 0
    assert {kind: outcomes[kind] for kind in ("answered", "cancelled", "late")} == {
        kind: became[kind] for kind in ("answered", "cancelled", "late")
    }
    assert told.refusals == became["refused"]


def test_a_hundred_thousand_leave_no_trace_in_memory(tiny: Tiny) -> None:
    recommender = Recommender.open(tiny.bundle)
    histories = list(combinations(tiny.item_ids, 2))
    resident = list[int]()
    with serving(recommender, "in-flight", size=32, queue=1000) as served:
        for first in range(0, MANY, 1000):
            futures = [served.submit(histories[n % len(histories)], k=3) for n in range(first, first + 1000)]
            assert all(future.result(PATIENCE).recommendation.items for future in futures)
            resident.append(resident_bytes())
    settled = resident[SETTLED // 1000 - 1]
    assert max(resident[SETTLED // 1000 :]) < FLAT * settled, resident[::10]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
