"""From an event loop: awaited, cancelled, several at once, several loops."""

import asyncio

import pytest

from serving_cases import (
    FIRST,
    HARMLESS,
    NO_NUMBERS,
    ONE,
    PATIENCE,
    POLICIES,
    Gate,
    Told,
    alone,
    assert_answers,
    ending_in,
    moody,
    serving,
)  # fmt: skip
from specbeam.catalog.errors import EngineError, HistoryError
from specbeam.serve import AsyncRecommender, Served

every_policy = pytest.mark.parametrize("policy", POLICIES)


@every_policy
def test_many_tasks_of_several_loops_get_their_own(policy: str) -> None:
    recommender = moody()

    async def all_of(served: AsyncRecommender) -> list[Served]:
        return await asyncio.gather(*(served.serve([item], k=5) for item in HARMLESS))

    with serving(recommender, policy, size=4) as served:
        for _ in range(2):
            for item, answer in zip(HARMLESS, asyncio.run(all_of(served)), strict=True):
                assert_answers(answer.recommendation, alone(recommender, [item]))


@every_policy
def test_errors_are_raised_where_it_is_awaited(policy: str) -> None:
    async def ask(served: AsyncRecommender) -> None:
        with pytest.raises(HistoryError):
            await served.serve([])
        with pytest.raises(EngineError):
            await served.serve([ending_in(NO_NUMBERS)[0]])
        assert (await served.recommend([ONE], k=3)).items

    with serving(moody(), policy) as served:
        asyncio.run(ask(served))


@every_policy
def test_the_loop_runs_on_while_the_engine_works(policy: str) -> None:
    gate = Gate()

    async def ask(served: AsyncRecommender) -> int:
        task = asyncio.create_task(served.serve([ONE]))
        await asyncio.to_thread(gate.wait)
        turns = 0
        for _ in range(100):
            await asyncio.sleep(0)
            turns += not task.done()
        gate.let()
        await asyncio.wait_for(task, PATIENCE)
        return turns

    with serving(moody(gate=gate), policy) as served:
        assert asyncio.run(ask(served)) == 100


@every_policy
def test_a_cancelled_task_cancels_its_request_alone(policy: str) -> None:
    gate, told = Gate(), Told()
    recommender = moody(gate=gate)

    async def ask(served: AsyncRecommender) -> list[Served]:
        first = asyncio.create_task(served.serve([FIRST], k=5))
        await asyncio.to_thread(gate.wait)
        tasks = [asyncio.create_task(served.serve([item], k=5)) for item in HARMLESS[:6]]
        await asyncio.sleep(0)  # all are asked
        for task in tasks[::2]:
            task.cancel()
        ended = await asyncio.gather(*tasks[::2], return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
        gate.let()
        return [await asyncio.wait_for(task, PATIENCE) for task in (first, *tasks[1::2])]

    with serving(recommender, policy, observer=told, size=1) as served:
        answers = asyncio.run(ask(served))
    for item, answer in zip((FIRST, *HARMLESS[1:6:2]), answers, strict=True):
        assert_answers(answer.recommendation, alone(recommender, [item]))
    assert sorted(told.outcomes) == ["answered"] * 4 + ["cancelled"] * 3


@every_policy
def test_a_loop_that_ends_before_its_answer_harms_nobody(policy: str) -> None:
    gate = Gate()
    recommender = moody(gate=gate)

    async def leave(served: AsyncRecommender) -> None:
        asyncio.create_task(served.serve([FIRST]))  # noqa: RUF006 (it is cancelled with its loop)
        await asyncio.to_thread(gate.wait)

    with serving(recommender, policy) as served:
        asyncio.run(leave(served))
        gate.let()
        assert_answers(served.submit([ONE], k=5).result(PATIENCE).recommendation, alone(recommender, [ONE]))
