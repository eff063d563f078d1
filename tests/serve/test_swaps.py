"""Another edition in the middle: a request sees one from beginning to end."""

import gc
import threading
import weakref
from concurrent.futures import Future

import pytest

from serving_cases import HARMLESS, ONE, PATIENCE, POLICIES, Gate, alone, assert_answers, edition, moody, serving
from specbeam.serve import Served

every_policy = pytest.mark.parametrize("policy", POLICIES)


@every_policy
def test_who_waits_or_runs_keeps_the_edition_that_was_there(policy: str) -> None:
    gate = Gate()
    old, new = moody(gate=gate), moody(seed=2)
    with serving(old, policy, size=2) as served:
        before = [served.submit([item], k=5) for item in HARMLESS[:6]]
        gate.wait()
        replaced = served.use(edition(new, "2"))
        assert (replaced.version, served.edition.version) == ("1", "2")
        after = [served.submit([item], k=5) for item in HARMLESS[:6]]
        gate.let()
        for futures, recommender, version in ((before, old, "1"), (after, new, "2")):
            for item, future in zip(HARMLESS, futures, strict=False):
                answer = future.result(PATIENCE)
                assert (answer.version, answer.catalog) == (version, version)
                assert_answers(answer.recommendation, alone(recommender, [item]))


@every_policy
def test_swapped_again_and_again_under_load_nothing_is_mixed(policy: str) -> None:
    recommenders = {str(seed): moody(seed=seed) for seed in (1, 2, 3)}
    editions = [edition(recommender, version) for version, recommender in recommenders.items()]
    futures, stop = list[tuple[str, Future[Served]]](), threading.Event()
    with serving(recommenders["1"], policy, size=4, queue=10_000) as served:

        def swap() -> None:
            while not stop.is_set():
                for each in editions:
                    served.use(each)

        swapper = threading.Thread(target=swap)
        swapper.start()
        try:
            futures = [(item, served.submit([item], k=5)) for _ in range(4) for item in HARMLESS]
        finally:
            stop.set()
            swapper.join()
    assert served.edition.version in recommenders
    known = {(v, item): alone(r, [item]) for v, r in recommenders.items() for item in HARMLESS}
    for item, future in futures:
        answer = future.result(0)
        assert answer.version == answer.catalog
        assert_answers(answer.recommendation, known[answer.version, item])


@every_policy
def test_an_edition_that_nobody_uses_any_more_is_let_go(policy: str) -> None:
    with serving(moody(), policy) as served:
        served.use(edition(moody(seed=2), "2"))
        served.submit([ONE]).result(PATIENCE)
        gone = weakref.ref(served.use(edition(moody(seed=3), "3")).recommender)
        served.submit([ONE]).result(PATIENCE)
        gc.collect()
        assert gone() is None
