"""Opening and closing: what waits is answered or refused, and nothing of it stays behind."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import wait

import pytest

from serving_cases import (
    FIRST,
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
from specbeam.runtime import Recommender
from specbeam.serve import AsyncRecommender, Closed, Serving
from tiny_bundle import Tiny

every_policy = pytest.mark.parametrize("policy", POLICIES)


def opened(recommender: Recommender, policy: str, size: int = 2) -> AsyncRecommender:
    return AsyncRecommender(edition(recommender), serving=Serving(policy=policy, size=size))  # type: ignore[arg-type]


@every_policy
def test_draining_answers_all_that_was_accepted(policy: str) -> None:
    gate = Gate()
    recommender = moody(gate=gate)
    served = opened(recommender, policy)
    futures = [served.submit([item], k=5) for item in HARMLESS[:9]]
    gate.wait()
    closing = threading.Thread(target=served.close)
    closing.start()
    gate.let()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    for item, future in zip(HARMLESS, futures, strict=False):
        assert_answers(future.result(0).recommendation, alone(recommender, [item]))
    with pytest.raises(Closed):
        served.submit([ONE])
    assert served.close()  # again


@every_policy
def test_without_draining_who_waits_is_refused_and_who_runs_is_answered_or_refused(policy: str) -> None:
    gate, told = Gate(), Told()
    served = opened(moody(gate=gate), policy)
    served.worker.observer = told
    first = served.submit([FIRST])
    gate.wait()
    waiting = [served.submit([item]) for item in HARMLESS[:5]]
    assert not served.close(drain=False, timeout=0.05)  # the engine is in a call
    gate.let()
    assert served.close(drain=False, timeout=PATIENCE)
    assert all(isinstance(future.exception(0), Closed) for future in waiting)
    assert first.exception(0) is None or isinstance(first.exception(0), Closed)
    assert len(told.outcomes) == 6


@every_policy
def test_a_timeout_is_kept_and_nothing_is_lost(policy: str) -> None:
    gate = Gate()
    with serving(moody(gate=gate), policy, size=2) as served:
        futures = [served.submit([item]) for item in HARMLESS[:5]]
        gate.wait()
        assert not served.worker.close(timeout=0.05)
        gate.let()
        assert len(wait(futures, PATIENCE).done) == 5
    assert [future.exception(0) for future in futures] == [None] * 5


@every_policy
def test_opened_and_closed_fifty_times_nothing_stays(policy: str) -> None:
    gc.collect()  # what earlier tests have left is theirs, and may go away meanwhile
    threads, handles = threading.active_count(), len(os.listdir("/proc/self/fd"))
    kept = []
    for _ in range(50):
        with opened(moody(), policy) as served:
            assert served.submit([ONE]).result(PATIENCE)
        kept.append(weakref.ref(served))
        del served
    gc.collect()
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) <= handles
    assert [ref for ref in kept if ref() is not None] == []


@every_policy
def test_bundles_opened_and_closed_nothing_stays(policy: str, tiny: Tiny) -> None:
    serving = Serving(policy=policy)  # type: ignore[arg-type]
    history = tiny.item_ids[:3]
    expected = Recommender.open(tiny.bundle).recommend([history], k=5)[0]
    gc.collect()
    threads = len(os.listdir("/proc/self/task"))
    for _ in range(5):
        with AsyncRecommender.open(tiny.bundle, serving=serving) as served:
            assert_answers(served.submit(history, k=5).result(PATIENCE).recommendation, expected)
        del served
        gc.collect()
    assert len(os.listdir("/proc/self/task")) <= threads


@every_policy
def test_two_at_a_time_know_nothing_of_each_other(policy: str) -> None:
    ones, others = moody(seed=1), moody(seed=2)
    with serving(ones, policy) as one, serving(others, policy) as other:
        pairs = [(one.submit([item], k=5), other.submit([item], k=5)) for item in HARMLESS]
        for item, (mine, theirs) in zip(HARMLESS, pairs, strict=True):
            assert_answers(mine.result(PATIENCE).recommendation, alone(ones, [item]))
            assert_answers(theirs.result(PATIENCE).recommendation, alone(others, [item]))


def test_the_core_is_light() -> None:
    code = (
        "import sys, specbeam.serve; heavy = {'torch', 'transformers', 'tensorrt', 'starlette', 'uvicorn', 'onnx', "
        "'prometheus_client'} & set(sys.modules); sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
