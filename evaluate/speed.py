"""Walltime: contestants that take turns on the same requests, in an order that is drawn anew every round.

What a turn takes depends on whose turn was before (whose threads still spin, what the caches hold) and on the
machine's other work. As the order is random, neither favours anybody: contestants that are the same are as likely
to be the faster as the slower in every round, which is all that the intervals of `paces` rest on.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import inf
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
    turns = dict.fromkeys(names, len(rounds))
    warm_up = rounds[:WARM_UP]
    for number, group in enumerate([*warm_up, *rounds], -len(warm_up)):
        first = number == -len(warm_up)
        for name in rng.permutation(names).tolist():
            if not first and not _takes_part(number, turns[name], len(rounds)):
                continue
            sleep(PAUSE)
            with around(name, number):
                start = perf_counter()
                answer = contestants[name](group)
                elapsed = perf_counter() - start
            if number >= 0:
                seconds[name][number], answers[name][number] = elapsed, answer
            elif first and elapsed * len(rounds) > share:
                turns[name] = min(len(rounds), max(FEWEST_TURNS, int(share / elapsed)))
        progress(max(0, number + 1))
    return seconds, answers


def _takes_part(number: int, turns: int, rounds: int) -> bool:
    """Whether so many turns, spread over the rounds, hold this one; below 0: a warm-up, for those that take all."""
    return turns == rounds if number < 0 else number * turns % rounds < turns


def served_by(recommender: Recommender, k: int) -> Contestant[Sequence[Example]]:
    """A recommender as a contestant: histories in, lists of items out."""

    def serve(group: Sequence[Example]) -> list[Recommendation]:
        return recommender.recommend([one.history for one in group], k, users=[one.user for one in group])

    return serve
