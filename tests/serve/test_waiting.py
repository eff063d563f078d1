"""Who waits: order, bound, deadlines and cancellation, each at a gate that holds the engine."""

from concurrent.futures import CancelledError
from time import monotonic, sleep

import pytest

from serving_cases import (
    HARMLESS,
    ONE,
    PATIENCE,
    POLICIES,
    THREE,
    TWO,
    Gate,
    Told,
    alone,
    assert_answers,
    moody,
    serving,
)  # fmt: skip
from specbeam.catalog.errors import OptionError
from specbeam.serve import DeadlinePassed, Overloaded, Serving

every_policy = pytest.mark.parametrize("policy", POLICIES)
SOON = 0.3  # seconds; a machine that is slower than this tests less, and no other thing


def passed(deadline: float) -> None:
    """Return when it has."""
    while monotonic() <= deadline:
        sleep(0.01)


@every_policy
def test_the_largest_priority_first_then_the_oldest(policy: str) -> None:
    gate, done = Gate(), list[int]()
    with serving(moody(gate=gate), policy, size=1) as served:
        served.submit([ONE])
        gate.wait()
        for number, priority in enumerate([0, 5, -1, 5, 0]):
            future = served.submit([HARMLESS[number]], priority=priority)
            future.add_done_callback(lambda _, number=number: done.append(number))
        gate.let()
    assert done == [1, 3, 0, 4, 2]


@every_policy
def test_as_many_wait_as_may_and_the_next_is_told_when_to_come_again(policy: str) -> None:
    gate, told = Gate(), Told()
    with serving(moody(gate=gate), policy, observer=told, size=1, queue=3) as served:
        accepted = [served.submit([ONE])]
        gate.wait()
        accepted += [served.submit([ONE]) for _ in range(3)]
        with pytest.raises(Overloaded, match="3 requests are waiting") as refused:
            served.submit([ONE], priority=9)
        assert refused.value.retry_after > 0
        gate.let()
        assert len([future.result(PATIENCE) for future in accepted]) == 4
        assert served.submit([ONE]).result(PATIENCE)  # there is room again
    assert (told.refusals, told.outcomes) == (1, ["answered"] * 5)


@every_policy
def test_a_deadline_that_passes_in_the_queue(policy: str) -> None:
    gate, told = Gate(), Told()
    recommender = moody(gate=gate)
    with serving(recommender, policy, observer=told, size=1) as served:
        first = served.submit([ONE])
        gate.wait()
        late, kept = served.submit([TWO], timeout=0.05), served.submit([THREE], timeout=PATIENCE)
        passed(monotonic() + 0.05)
        gate.let()
        with pytest.raises(DeadlinePassed):
            late.result(PATIENCE)
        first.result(PATIENCE)
        assert_answers(kept.result(PATIENCE).recommendation, alone(recommender, [THREE], k=20))
    assert sorted(told.outcomes) == ["answered", "answered", "late"]


@every_policy
@pytest.mark.parametrize("timeout", [0, -1.0])
def test_a_deadline_that_is_over_when_it_is_asked(policy: str, timeout: float) -> None:
    with serving(moody(), policy) as served, pytest.raises((DeadlinePassed, OptionError)):
        served.submit([ONE], timeout=timeout).result(PATIENCE)


@every_policy
def test_a_deadline_that_passes_between_two_rounds(policy: str) -> None:
    gate, told = Gate(), Told()
    recommender = moody(gate=gate, shape=None)
    with serving(recommender, policy, observer=told, size=2) as served:
        late = served.submit([ONE], timeout=SOON)
        deadline = monotonic() + SOON
        kept = served.submit([TWO])
        gate.wait()  # it is in the engine, unless the machine was slower than that
        passed(deadline)
        gate.let()
        with pytest.raises(DeadlinePassed):
            late.result(PATIENCE)
        assert_answers(kept.result(PATIENCE).recommendation, alone(recommender, [TWO], k=20))
    assert sorted(told.outcomes) == ["answered", "late"]


@every_policy
def test_cancelled_in_the_queue_it_never_runs(policy: str) -> None:
    gate, told = Gate(), Told()
    with serving(moody(gate=gate), policy, observer=told, size=1) as served:
        first = served.submit([ONE])
        gate.wait()
        gone, kept = served.submit([TWO]), served.submit([THREE])
        assert gone.cancel()
        gate.let()
        assert first.result(PATIENCE)
        assert kept.result(PATIENCE)
    with pytest.raises(CancelledError):
        gone.result(0)
    assert sorted(told.outcomes) == ["answered", "answered", "cancelled"]


@every_policy
def test_cancelled_between_two_rounds_the_others_are_answered(policy: str) -> None:
    gate, told = Gate(), Told()
    recommender = moody(gate=gate, shape=None)
    with serving(recommender, policy, observer=told, size=2) as served:
        gone = served.submit([ONE])
        gate.wait()  # it is in the engine
        kept = served.submit([TWO])
        assert gone.cancel()
        gate.let()
        assert_answers(kept.result(PATIENCE).recommendation, alone(recommender, [TWO], k=20))
    assert gone.cancelled()
    assert sorted(told.outcomes) == ["answered", "cancelled"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("policy", "fastest"), ("size", 0), ("size", 1.5), ("queue", 0), ("wait_ms", -1), ("wait_ms", float("nan")),
        ("wait_ms", "soon"), ("wait_ms", True),
    ],
)  # fmt: skip
def test_ways_to_serve_that_cannot_be(name: str, value: object) -> None:
    with pytest.raises(OptionError):
        Serving(**{name: value})  # type: ignore[arg-type]


@every_policy
def test_whoever_was_cancelled_makes_room_when_the_queue_is_full(policy: str) -> None:
    gate, told = Gate(), Told()
    with serving(moody(gate=gate), policy, observer=told, size=1, queue=2) as served:
        first = served.submit([ONE])
        gate.wait()
        cancelled, kept = served.submit([TWO]), served.submit([THREE])
        assert cancelled.cancel()
        last = served.submit([ONE])  # in the place of the one that was cancelled
        with pytest.raises(Overloaded):
            served.submit([ONE])
        gate.let()
        assert all(future.result(PATIENCE) for future in (first, kept, last))
    assert sorted(told.outcomes) == ["answered"] * 3 + ["cancelled"]
