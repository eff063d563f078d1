"""The last minute in numbers."""

import numpy as np
import pytest

from page_cases import shop
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.stats import DecodeStats
from specbeam.serve.editions import Edition
from specbeam.serve.http.figures import LATELY, WINDOW, LiveFigures
from specbeam.serve.observer import Nobody, Observers


class Clock:
    """Seconds that pass when they are told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def edition() -> Edition:
    return Edition("shop", "1", "1", shop())


def calls(requests: int, target: int, levels: list[int]) -> DecodeStats:
    stats = DecodeStats(len(levels), requests=requests, target_calls=target)
    stats.levels += np.array(levels)
    return stats


def test_nothing_is_told_of_nothing() -> None:
    told = LiveFigures(Clock()).now()
    assert (told.users_per_second, told.answered, told.refused, told.failed) == (0, 0, 0, 0)
    assert told.p50 is told.p95 is told.batch is told.target_calls is told.plain_calls is told.calls_saved is None


def test_latency_is_that_of_lists_that_were_answered(edition: Edition) -> None:
    figures = LiveFigures(Clock())
    for milliseconds in range(1, 101):
        figures.ended(edition, "answered", 0.0, milliseconds / 1000)
    figures.ended(edition, "failed", 0.0, 50.0)
    figures.ended(edition, "late", 0.0, 50.0)
    figures.ended(edition, "cancelled", 0.0, 50.0)
    figures.refused("shop")
    told = figures.now()
    assert (told.answered, told.failed, told.refused) == (100, 2, 1)
    assert (told.p50, told.p95) == (pytest.approx(50.5), pytest.approx(95.05))


def test_calls_saved_are_those_of_a_search_without_drafts(edition: Edition) -> None:
    figures = LiveFigures(Clock())
    for _ in range(2):
        figures.ended(edition, "answered", 0.0, 0.1)
    figures.called(edition, 2, calls(2, 3, [0, 2, 2, 0]))  # two prompts and four depths
    figures.called(edition, 0, calls(0, 0, [0, 0, 0, 1]))  # what is counted at the end, and no call
    told = figures.now()
    assert (told.target_calls, told.plain_calls, told.batch) == (1.5, 3.5, 2.0)
    assert told.calls_saved == pytest.approx(1 - 3 / 7)


def test_a_real_search_without_drafts_saves_nothing(edition: Edition) -> None:
    for planning, saves in ((FixedPlanning(None), False), (edition.recommender.planning, True)):
        recommender, figures = edition.recommender.variant(planning, 4), LiveFigures(Clock())
        recommender.recommend([["i1"], ["i2"], ["i3"]], 10)
        figures.called(edition, 3, recommender.stats)
        saved = figures.now().calls_saved
        assert saved is not None
        assert (saved > 0) == saves
        assert saves or saved == 0


def test_what_is_older_than_a_minute_is_forgotten(edition: Edition) -> None:
    clock = Clock()
    figures = LiveFigures(clock)
    clock.now += 100
    figures.ended(edition, "answered", 0.0, 9.0)
    figures.called(edition, 4, calls(1, 1, [0, 1]))
    assert figures.now().users_per_second == 1 / LATELY
    clock.now += LATELY + 1
    assert (figures.now().users_per_second, figures.now().answered) == (0, 1)
    figures.ended(edition, "answered", 0.0, 1.0)
    clock.now += WINDOW - LATELY
    told = figures.now()
    assert (told.answered, told.p50, told.batch) == (1, 1000.0, None)


def test_several_observers_are_told_the_same(edition: Edition) -> None:
    first, second = LiveFigures(Clock()), LiveFigures(Clock())
    both = Observers(first, Nobody(), second)
    both.refused("shop")
    both.ended(edition, "answered", 0.0, 0.5)
    both.called(edition, 3, calls(1, 2, [0, 1, 1]))
    assert first.now() == second.now()
    assert (first.now().refused, first.now().answered, first.now().batch) == (1, 1, 3.0)
