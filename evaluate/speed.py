"""Walltime: contestants that take turns on the same requests, in an order that is drawn anew every round.

What a turn takes depends on whose turn was before (whose threads still spin, what the caches hold) and on the
machine's other work. As the order is random, neither favours anybody: contestants that are the same are as likely
to be the faster as the slower in every round, which is all that the intervals of `paces` rest on.
"""

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter, sleep

import numpy as np

from ..catalog.histories.dataset import Example
from ..runtime import Recommendation, Recommender
from ..runtime.types import Float64

WARM_UP = 3  # rounds that do not count
PAUSE = 0.01  # seconds before each turn: the threads of the contestant before stop spinning meanwhile
Contestant = Callable[[Sequence[Example]], object]


def rounds_of(examples: Sequence[Example], batch: int, rounds: int) -> list[list[Example]]:
    """As many groups of `batch` requests, from the first on, and again from the first where they do not suffice."""
    return [[examples[(i * batch + j) % len(examples)] for j in range(batch)] for i in range(rounds)]


def take_turns(
    contestants: Mapping[str, Contestant],
    rounds: Sequence[Sequence[Example]],
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[dict[str, Float64], dict[str, list[object]]]:
    """Every contestant's seconds [R] and answers [R], one a round.

    In a round all of them serve the same requests, one after another; `seed` draws the orders. `progress` is told how
    many rounds are done.
    """
    names, rng = list(contestants), np.random.default_rng(seed)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    answers: dict[str, list[object]] = {name: [] for name in names}
    warm_up = rounds[:WARM_UP]
    for number, group in enumerate([*warm_up, *rounds]):
        for name in rng.permutation(names).tolist():
            sleep(PAUSE)
            start = perf_counter()
            answer = contestants[name](group)
            elapsed = perf_counter() - start
            if number >= len(warm_up):
                seconds[name].append(elapsed)
                answers[name].append(answer)
        progress(max(0, number + 1 - len(warm_up)))
    return {name: np.array(times) for name, times in seconds.items()}, answers


def served_by(recommender: Recommender, k: int) -> Contestant:
    """A recommender as a contestant: histories in, lists of items out."""

    def serve(group: Sequence[Example]) -> list[Recommendation]:
        return recommender.recommend([one.history for one in group], k, users=[one.user for one in group])

    return serve
