"""The engine raises, or gives no numbers, for one request of a batch: that one fails, the others are answered."""

import sys
from concurrent.futures import Future
from threading import Event

import pytest

from serving_cases import (
    FIRST,
    HARMLESS,
    NO_NUMBERS,
    PATIENCE,
    POLICIES,
    RAISES,
    Gate,
    Told,
    alone,
    assert_answers,
    edition,
    ending_in,
    moody,
    serving,
)  # fmt: skip
from specbeam.catalog.errors import EngineError
from specbeam.runtime import DraftShape, Verification
from specbeam.runtime.stats import DecodeStats
from specbeam.serve import AsyncRecommender, Closed, Served, Serving
from specbeam.serve.editions import Edition
from specbeam.serve.observer import Observer, Outcome

every_policy = pytest.mark.parametrize("policy", POLICIES)
at_once_or_later = pytest.mark.parametrize("late", [False, True], ids=["prompt", "later"])
GOOD = [[HARMLESS[n], HARMLESS[-n]] for n in range(1, 8)]


def outcome(future: "Future[Served]") -> Served | BaseException:
    return future.exception(PATIENCE) or future.result()


@every_policy
@at_once_or_later
@pytest.mark.parametrize("token", [RAISES, NO_NUMBERS], ids=["raises", "no numbers"])
@pytest.mark.parametrize("shape", [None, DraftShape(2, 1)], ids=["plain", "drafted"])
@pytest.mark.parametrize("mode", ["strict", "sampled"])
def test_one_fails_and_the_others_are_answered(
    policy: str, late: bool, token: int, shape: DraftShape | None, mode: str
) -> None:
    gate, told = Gate(), Told()
    recommender = moody(gate=gate, late=late, shape=shape, verification=Verification(mode))  # type: ignore[arg-type]
    ill = [HARMLESS[0], ending_in(token)[0]]
    with serving(recommender, policy, observer=told, size=8) as served:
        before = served.submit([FIRST])
        gate.wait()  # all that follow share a batch
        requests = [*GOOD[:3], ill, *GOOD[3:]]
        futures = [served.submit(history, k=5 + number) for number, history in enumerate(requests)]
        gate.let()
        assert not isinstance(outcome(before), BaseException)
        ended = [outcome(future) for future in futures]
    for number, (history, end) in enumerate(zip(requests, ended, strict=True)):
        if history is ill:
            assert isinstance(end, EngineError)
        else:
            assert isinstance(end, Served), end
            assert_answers(end.recommendation, alone(recommender, history, k=5 + number))
    assert sorted(told.outcomes) == ["answered"] * 8 + ["failed"]


@every_policy
@at_once_or_later
def test_several_fail_for_several_reasons(policy: str, late: bool) -> None:
    recommender = moody(late=late, shape=None)  # so that each takes several calls
    ill = [[item] for item in ending_in(RAISES) + ending_in(NO_NUMBERS)]
    requests = [history for pair in zip(ill, GOOD * 3, strict=False) for history in pair]
    with serving(recommender, policy, size=4) as served:
        ended = [outcome(future) for future in [served.submit(history, k=5) for history in requests]]
    for history, end in zip(requests, ended, strict=True):
        assert isinstance(end, BaseException) == (history in ill)
        if isinstance(end, Served):
            assert_answers(end.recommendation, alone(recommender, history))


@every_policy
def test_after_nothing_but_failures_it_serves_on(policy: str) -> None:
    recommender = moody()
    with serving(recommender, policy, size=8) as served:
        ended = [outcome(served.submit([item])) for item in ending_in(RAISES)]
        assert all(isinstance(end, EngineError) for end in ended)
        assert_answers(served.submit(GOOD[0], k=5).result(PATIENCE).recommendation, alone(recommender, GOOD[0]))


@every_policy
def test_what_the_engine_says_of_itself_is_passed_on(policy: str) -> None:
    with serving(moody(), policy) as served, pytest.raises(EngineError, match="out of order"):
        served.submit([ending_in(RAISES)[0]]).result(PATIENCE)


@every_policy
def test_an_observer_that_fails_is_logged_and_nobody_s_request_s(
    policy: str, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    class Broken(Observer):
        def refused(self, model: str) -> None:
            raise ValueError("no counter of that name")

        def ended(self, edition: Edition, outcome: Outcome, waited: float, seconds: float) -> None:
            raise ValueError("no counter of that name")

        def called(self, edition: Edition, batch: int, stats: DecodeStats) -> None:
            raise ValueError("no counter of that name")

    recommender = moody()
    with serving(recommender, policy, observer=Broken()) as served:
        for _ in range(3):
            assert_answers(served.submit(GOOD[0], k=5).result(PATIENCE).recommendation, alone(recommender, GOOD[0]))
    assert "no counter of that name" in caplog.text


@every_policy
def test_what_a_callback_raises_is_logged_and_the_worker_goes_on(
    policy: str, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    recommender = moody()
    with serving(recommender, policy) as served:
        for timeout in (1e-6, None):  # in the queue, and once it has landed
            served.submit(GOOD[0], timeout=timeout).add_done_callback(lambda _: sys.exit(3))
        assert_answers(served.submit(GOOD[1], k=5).result(PATIENCE).recommendation, alone(recommender, GOOD[1]))
    assert "a callback of a future failed" in caplog.text


@every_policy
def test_a_callback_may_close(policy: str) -> None:
    closed = Event()
    served = AsyncRecommender(edition(moody()), serving=Serving(policy=policy))  # type: ignore[arg-type]

    def close(_: object) -> None:
        served.close()
        closed.set()

    served.submit(GOOD[0]).add_done_callback(close)
    assert closed.wait(PATIENCE)
    with pytest.raises(Closed):
        served.submit(GOOD[0])
    served.worker._thread.join(PATIENCE)
    assert not served.worker._thread.is_alive()
