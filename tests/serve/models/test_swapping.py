"""Under load: a catalog is swapped every few milliseconds, a model switched ten times; nothing fails or is mixed up."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Event, Thread
from time import sleep

import numpy as np
import pytest

from scripted_recommender import MODES, make
from specbeam.catalog.updates import CatalogUpdate
from specbeam.runtime import Recommender
from specbeam.serve import AsyncRecommender, Served, Serving
from specbeam.serve.editions import Edition
from specbeam.serve.models import Models
from swap_cases import check_unmixed, entries, tiny_rows

pytestmark = pytest.mark.services
CALLERS, K = 8, 6
HISTORIES = [[f"i{i}"] for i in range(5)]  # items that are never retired


class Load:
    """Callers that ask for lists one after another, of whatever model serves, until they are told to stop."""

    def __init__(self, serving: Callable[[], AsyncRecommender]) -> None:
        self._serving, self._stop = serving, Event()
        self.asked: list[tuple[Future[Served], list[str]]] = []
        self.faults: list[BaseException] = []
        self._threads = [Thread(target=self._ask, args=(number,)) for number in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        rng = np.random.default_rng(number)
        try:
            while not self._stop.is_set():
                history = HISTORIES[rng.integers(len(HISTORIES))]
                future = self._serving().submit(history, k=K)
                self.asked.append((future, history))
                future.result(timeout=60)
        except BaseException as error:
            self.faults.append(error)

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def check(self, by: dict[tuple[str, str], Recommender]) -> list[Served]:
        """None failed, none is mixed up; all answers."""
        assert self.faults == []
        check_unmixed([future for future, _ in self.asked], [history for _, history in self.asked], K, by)
        return [future.result() for future, _ in self.asked]


@pytest.mark.parametrize("mode", ["strict, full", "sampled"])
@pytest.mark.parametrize("policy", ["gathered", "in-flight"])
def test_a_catalog_is_swapped_every_few_milliseconds(policy: str, mode: str) -> None:
    rows, rng = tiny_rows(), np.random.default_rng(0)
    models = Models(Serving(policy=policy, size=4))  # type: ignore[arg-type]
    models.add(Edition("m", "1", "1", make(rows, verification=MODES[mode])))
    catalogs = models.catalogs("m")
    by = {("1", "1"): models.named("m").edition.recommender}
    with Load(lambda: models.named("m")) as load:
        for number in range(60):
            there = set(catalogs.serving.edition.recommender.catalog.item_ids)
            chosen = {f"i{i}" for i in rng.choice(np.arange(5, 30), 10, replace=False)}
            new = sorted(chosen - there)
            update = CatalogUpdate(
                retire=tuple(sorted(chosen & there)), add=entries(rows[[int(item[1:]) for item in new]], new)
            )
            edition = catalogs.rollback() if number % 7 == 6 else catalogs.update(update)
            by["1", edition.catalog] = edition.recommender
            sleep(0.004)
    answers = load.check(by)
    assert len({answer.catalog for answer in answers}) > 20
    assert models.close(timeout=60)


def test_a_model_is_switched_ten_times() -> None:
    rows = tiny_rows()
    models = Models(Serving(size=4))
    by = {}
    for version in ("1", "2", "3"):
        by[version, "1"] = make(rows, seed=int(version))
        models.add(Edition("m", version, "1", by[version, "1"]))
    with Load(lambda: models.named("m")) as load:
        seen = 0
        for number in range(10):
            version = "123"[number % 3]
            models.switch("m", version)
            if number == 5:
                edition = models.catalogs("m", "1").update(CatalogUpdate(retire=("i20",)))
                by["1", edition.catalog] = edition.recommender
            while len(load.asked) < seen + 20 and not load.faults:
                sleep(0.001)
            seen = len(load.asked)
        models.unload("m", "2")
    answers = load.check(by)
    assert {(answer.version, answer.catalog) for answer in answers} == {("1", "1"), ("1", "2"), ("2", "1"), ("3", "1")}
    assert models.close(timeout=60)
