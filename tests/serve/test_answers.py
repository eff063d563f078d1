"""Whoever shares a batch: answers are those of the recommender alone."""

from concurrent.futures import Future, wait
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_cases import (
    HARMLESS,
    ONE,
    PATIENCE,
    POLICIES,
    Gate,
    Told,
    alone,
    assert_answers,
    edition,
    moody,
    serving,
)  # fmt: skip
from specbeam.catalog.errors import HistoryError, OptionError
from specbeam.runtime import ItemFilter, Verification
from specbeam.serve import Served

every_policy = pytest.mark.parametrize("policy", POLICIES)

items = st.sampled_from(HARMLESS)
ways = st.sampled_from([
    None, Verification("sampled", seed=3, temperature=0.8), Verification("sampled", seed=4),
    Verification("tolerant", slack=0.0), Verification(scoring="full"),
])  # fmt: skip
filters = st.none() | st.builds(
    ItemFilter, allow=st.none() | st.frozensets(items, max_size=30), deny=st.frozensets(items, max_size=30)
)
asked = st.fixed_dictionaries({
    "history": st.lists(items | st.just("unknown"), min_size=1, max_size=8).filter(lambda all: set(all) != {"unknown"}),
    "k": st.integers(1, 70), "item_filter": filters, "exclude_history": st.booleans(), "verification": ways,
    "priority": st.integers(-2, 2), "user": st.none() | st.sampled_from(["ada", "bob"]),
})  # fmt: skip
RECOMMENDER = moody()


def expected(request: dict[str, Any]) -> Any:
    own = {key: value for key, value in request.items() if key not in ("priority", "verification", "history")}
    way = request["verification"]
    return alone(RECOMMENDER if way is None else RECOMMENDER.verifying(way), request["history"], **own)


@every_policy
@given(requests=st.lists(asked, min_size=1, max_size=12), size=st.integers(1, 5))
@settings(max_examples=30)
def test_any_mixture_is_answered_as_each_alone(policy: str, requests: list[dict[str, Any]], size: int) -> None:
    with serving(RECOMMENDER, policy, size=size) as served:
        answers = [served.submit(**request).result(PATIENCE) for request in requests[:1]]
        futures = [served.submit(**request) for request in requests[1:]]
        answers += [future.result(PATIENCE) for future in futures]
    for request, answer in zip(requests, answers, strict=True):
        assert_answers(answer.recommendation, expected(request))
        assert bool(answer.recommendation.stats.target_calls) <= answer.batch <= size
        assert 0 <= answer.waited <= answer.seconds


@every_policy
@pytest.mark.parametrize(
    "way", [Verification("tolerant", slack=1.0), Verification("relaxed", seed=1)], ids=["tolerant", "relaxed"]
)
def test_approximate_lists_are_whole_and_hold_what_is_allowed(policy: str, way: Verification) -> None:
    denied = frozenset(HARMLESS[:10])
    with serving(RECOMMENDER, policy, size=4) as served:
        futures = [
            served.submit([item], k=9, item_filter=ItemFilter(deny=denied), verification=way) for item in HARMLESS
        ]
        for future in futures:
            got = [entry.item for entry in future.result(PATIENCE).recommendation.items]
            assert len(set(got)) == 9
            assert not denied & set(got)


@every_policy
def test_who_comes_while_others_are_deep_gets_the_same(policy: str) -> None:
    gate = Gate()
    recommender = moody(gate=gate, shape=None)
    histories = [[item, other] for item, other in zip(HARMLESS[:9], HARMLESS[9:18], strict=True)]
    futures: list[Future[Served]] = []
    with serving(recommender, policy, size=3) as served:
        for call, history in enumerate(histories, 1):  # one more before every call but the first
            futures.append(served.submit(history, k=1 + call))
            gate.wait(call)
            gate.let(1)
        gate.let()
        answers = [future.result(PATIENCE) for future in futures]
    for number, (history, answer) in enumerate(zip(histories, answers, strict=True), 1):
        assert_answers(answer.recommendation, alone(recommender, history, k=1 + number))


@every_policy
def test_answers_say_what_they_are_from(policy: str) -> None:
    gate, told = Gate(), Told()
    with serving(moody(gate=gate), policy, observer=told, size=8) as served:
        first = served.submit(HARMLESS[:2])
        gate.wait()
        futures = [served.submit([item]) for item in HARMLESS[:8]]
        gate.let()
        done = [future.result(PATIENCE) for future in (first, *futures)]
    assert {(one.model, one.version, one.catalog) for one in done} == {("scripted", "1", "1")}
    assert max(one.batch for one in done) == 8
    assert told.outcomes == ["answered"] * 9


@every_policy
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"history": []}, HistoryError), ({"history": ["nothing", "known"]}, HistoryError),
        ({"history": "i3"}, OptionError), ({"history": [3.5]}, OptionError), ({"k": 0}, OptionError),
        ({"k": 1.5}, OptionError), ({"k": True}, OptionError), ({"k": 41}, OptionError),
        ({"item_filter": {ONE}}, OptionError), ({"exclude_history": 1}, OptionError), ({"user": 1.5}, OptionError),
        ({"priority": "high"}, OptionError), ({"priority": 2**31 + 1}, OptionError),
        ({"timeout": "soon"}, OptionError), ({"timeout": float("nan")}, OptionError),
        ({"verification": 3}, OptionError),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_at_once_and_alone(
    policy: str, wrong: dict[str, Any], error: type[Exception]
) -> None:
    recommender = moody(max_k=40)
    with serving(recommender, policy) as served:
        good = served.submit([ONE], k=5)
        with pytest.raises(error):
            served.submit(**({"history": [ONE]} | wrong))
        assert_answers(good.result(PATIENCE).recommendation, alone(recommender, [ONE]))


@every_policy
def test_threads_and_recommenders_may_share_a_worker(policy: str) -> None:
    other = moody(seed=2)
    with serving(RECOMMENDER, policy, size=3) as served:
        second = type(served)(edition(other, "2"), served.worker)
        futures = [
            (each.submit([item], k=7), item, each.edition) for item in HARMLESS[:12] for each in (served, second)
        ]
        wait([future for future, _, _ in futures], PATIENCE)
        assert second.close()
        assert served.submit([ONE]).result(PATIENCE).version == "1"  # a shared worker goes on
    for future, item, used in futures:
        answer = future.result(0)
        assert answer.version == used.version
        assert_answers(answer.recommendation, alone(used.recommender, [item], k=7))
