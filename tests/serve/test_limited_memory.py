"""A server whose memory is limited lets requests wait that it does not hold, and refuses those it never would."""

import numpy as np
import pytest

from scripted_recommender import make
from scripted_search import random_catalog
from serving_cases import PATIENCE, alone, assert_answers, serving
from specbeam.engines.footprint import Footprint
from specbeam.runtime import room as room_module
from specbeam.serve.errors import TooLarge
from specbeam.serve.protocol.refusals import refusal

ROWS = random_catalog(np.random.default_rng(0), 300, 3, 8)
HISTORIES = [[f"i{(7 * user + n) % 300}" for n in range(1 + user % 5)] for user in range(24)]
FOOTPRINT = Footprint(slot=2000, token=500, pair=8, row=4000)


@pytest.mark.parametrize("policy", ["gathered", "in-flight"])
def test_requests_wait_until_there_is_room(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "resident_memory", lambda: 10**6)
    recommender = make(ROWS, footprint=FOOTPRINT, memory=6_000_000)
    requests = [recommender.encode(history, k=5) for history in HISTORIES]
    most = recommender.fitting(requests)
    assert 1 < most < 8
    with serving(recommender, policy, size=8, wait_ms=20 if policy == "gathered" else 0) as served:
        futures = [served.submit(history, k=5) for history in HISTORIES]
        for history, future in zip(HISTORIES, futures, strict=True):
            answer = future.result(PATIENCE)
            assert_answers(answer.recommendation, alone(recommender, history))
            assert answer.batch <= most
    assert max(future.result().batch for future in futures) > 1


@pytest.mark.parametrize("policy", ["gathered", "in-flight"])
def test_a_request_that_memory_never_holds_is_refused_and_the_others_go_on(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_module, "resident_memory", lambda: 10**6)
    recommender = make(ROWS, footprint=FOOTPRINT, memory=2_300_000)
    with serving(recommender, policy) as served:
        futures = [served.submit(HISTORIES[0], k=k) for k in (5, 300, 5)]
        for future in (futures[0], futures[2]):
            assert_answers(future.result(PATIENCE).recommendation, alone(recommender, HISTORIES[0]))
        with pytest.raises(TooLarge, match=r"cannot be served: its search .* Allow more memory"):
            futures[1].result(PATIENCE)
    assert refusal(futures[1].exception() or AssertionError()).code == "too_large"
