"""Walltime: contestants that take turns on the same requests, in an order that is drawn anew every round.

What a turn takes depends on whose turn was before (whose threads still spin, what the caches hold) and on the
machine's other work. As the order is random, neither favours anybody: contestants that are the same are as likely
to be the faster as the slower in every round, which is all that the intervals of `paces` rest on.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import ceil, inf
from time import perf_counter, sleep
from typing import TypeVar

import numpy as np

from ..catalog.histories.dataset import Example
from ..runtime import Recommendation, Recommender
from ..runtime.types import Float64

WARM_UP = 3  # rounds that do not count
PAUSE = 0.01  # seconds before each turn: the threads of the contestant before stop spinning meanwhile
FEWEST_TURNS = 3
T = TypeVar("T")
Group = TypeVar("Group")
Contestant = Callable[[Group], object]


def rounds_of(examples: Sequence[T], batch: int, rounds: int) -> list[list[T]]:
    """As many groups of `batch` requests, from the first on, and again from the first where they do not suffice."""
    return [[examples[(i * batch + j) % len(examples)] for j in range(batch)] for i in range(rounds)]


def take_turns(
    contestants: Mapping[str, Contestant[Group]],
    rounds: Sequence[Group],
    *,
    seed: int = 0,
    share: float = inf,
    around: Callable[[str, int], AbstractContextManager[object]] = lambda name, number: nullcontext(),
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[dict[str, Float64], dict[str, list[object]]]:
    """Every contestant's seconds [R] and answers [R], one a round.

    In a round all of them serve the same requests, one after another; `seed` draws the orders. share: seconds of a
    contestant; who would need more, by its first turn, takes part in fewer rounds, spread over all of them, and has
    NaN seconds and the answer None in the others. around: entered before each turn (a name and the round, below 0 where
    it does not count) and left after it, unmeasured. `progress` is told how many rounds are done.
    """
    names, rng = list(contestants), np.random.default_rng(seed)
    seconds = {name: np.full(len(rounds), np.nan) for name in names}
    answers: dict[str, list[object]] = {name: [None] * len(rounds) for name in names}
    strides = dict.fromkeys(names, 1)
    warm_up = rounds[:WARM_UP]
    for number, group in enumerate([*warm_up, *rounds], -len(warm_up)):
        first = number == -len(warm_up)
        for name in rng.permutation(names).tolist():
            if not first and (strides[name] > 1 if number < 0 else number % strides[name]):
                continue
            sleep(PAUSE)
            with around(name, number):
                start = perf_counter()
                answer = contestants[name](group)
                elapsed = perf_counter() - start
            if number >= 0:
                seconds[name][number], answers[name][number] = elapsed, answer
            elif first:
                strides[name] = _stride(share / elapsed if elapsed else inf, len(rounds))
        progress(max(0, number + 1))
    return seconds, answers


def _stride(turns: float, rounds: int) -> int:
    """Every how many rounds to take part for so many turns, `FEWEST_TURNS` at least.

    A power of two, so that whoever takes part less often has all its rounds in common with the others.
    """
    stride = 1
    while rounds / stride > turns and ceil(rounds / (2 * stride)) >= FEWEST_TURNS:
        stride *= 2
    return stride


def served_by(recommender: Recommender, k: int) -> Contestant[Sequence[Example]]:
    """A recommender as a contestant: histories in, lists of items out."""

    def serve(group: Sequence[Example]) -> list[Recommendation]:
        return recommender.recommend([one.history for one in group], k, users=[one.user for one in group])

    return serve
