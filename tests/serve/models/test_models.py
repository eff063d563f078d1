"""Models by name and version: loaded beside what serves, switched to, rolled back, unloaded."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripted_recommender import make, pairs
from specbeam.catalog.errors import BundleError, OptionError
from specbeam.engines.bundle.items import Bundle
from specbeam.runtime import Recommender
from specbeam.runtime.answers import RequestError
from specbeam.runtime.options import Batching, EngineChoice
from specbeam.serve import memory
from specbeam.serve.editions import Edition
from specbeam.serve.models import Models, StillServes, UnknownModel
from specbeam.serve.opening import Opening
from swap_cases import retitled, tiny_rows
from tiny_bundle import Tiny, break_rows


@pytest.fixture
def models() -> Iterator[Models]:
    one = Models(opening=Opening(engine=EngineChoice(threads=1), batching=Batching(2)))
    yield one
    assert one.close(timeout=60)


def served(models: Models) -> list[tuple[str, str, bool]]:
    return [(one.model, one.version, one.current) for one in models.status()]


def test_versions_are_loaded_switched_to_and_unloaded(models: Models, tiny: Tiny) -> None:
    with pytest.raises(UnknownModel, match=r"no model is served\. Load one"):
        models.named()
    assert models.load("shop", tiny.bundle).version == "1"
    assert models.load("shop", Bundle.open(tiny.bundle)).version == "2"
    assert served(models) == [("shop", "1", True), ("shop", "2", False)]
    status = models.status()[0]
    assert (status.bundle, status.device, status.items, status.catalog) == (str(tiny.bundle), "cpu", 40, "1")
    (expected,) = Recommender.open(tiny.bundle).recommend([["1", "2"]], 5)
    for version in ("1", "2"):
        answer = models.named("shop", version).submit(["1", "2"], k=5).result(timeout=60)
        assert (answer.model, answer.version, answer.catalog) == ("shop", version, "1")
        assert [item for item, _ in pairs(answer.recommendation)] == [item for item, _ in pairs(expected)]
    assert models.switch("shop", "2").version == "2"
    assert models.named().edition.version == models.named("shop").edition.version == "2"
    with pytest.raises(StillServes, match=r"version 2 of 'shop' serves; there are also: 1. Switch"):
        models.unload("shop", "2")
    models.unload("shop", "1")
    with pytest.raises(UnknownModel, match=r"no version '1' of 'shop' is served; there is: 2"):
        models.named("shop", "1")
    with pytest.raises(UnknownModel, match="no version '1'"):
        models.switch("shop", "1")
    assert models.load("shop", tiny.bundle).version == "3"  # no number is given twice
    models.unload("shop")
    assert (models.names, models.status()) == ([], [])
    assert models.load("shop", tiny.bundle).version == "4"


def test_of_those_that_do_not_serve_the_last_two_are_kept(models: Models) -> None:
    rows = tiny_rows()
    for version in "1234":
        models.add(Edition("m", version, "1", make(rows)))
    assert served(models) == [("m", "2", False), ("m", "3", False), ("m", "4", True)]
    models.switch("m", "2")
    assert served(models) == [("m", "3", False), ("m", "4", False), ("m", "2", True)]
    models.add(Edition("m", "5", "1", make(rows)))
    assert served(models) == [("m", "4", False), ("m", "2", False), ("m", "5", True)]
    models.switch("m", "2")  # back
    assert models.named("m").edition.version == "2"


def test_what_is_unloaded_is_freed_once_it_has_answered(models: Models) -> None:
    models.add(Edition("m", "1", "1", make(tiny_rows())))
    models.add(Edition("other", "1", "1", make(tiny_rows())))
    gone = weakref.ref(models.named("m").edition)
    waiting = [models.named("m").submit(["i1"], k=5) for _ in range(9)]
    models.unload("m")
    assert models.names == ["other"]
    assert {future.result(timeout=60).model for future in waiting} == {"m"}
    del waiting
    models.named().submit(["i1"]).result(timeout=60)  # the worker is elsewhere
    gc.collect()
    assert gone() is None


def test_each_version_has_catalogs_of_its_own(models: Models) -> None:
    for version in "12":
        models.add(Edition("m", version, "1", make(tiny_rows())))
    assert models.catalogs("m", "1").update(retitled(7)).catalog == "2"
    assert [(one.version, one.catalog, one.kept) for one in models.status()] == [("1", "2", ["1"]), ("2", "1", [])]
    assert models.named("m").submit(["i1"]).result(timeout=60).catalog == "1"
    answer = models.named("m", "1").submit(["i1"]).result(timeout=60)
    assert {item.title for item in answer.recommendation.items} == {"title 7"}


def test_what_cannot_be_loaded_changes_nothing(
    models: Models, tiny: Tiny, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_rows(bundle, slice(None))
    models.load("shop", tiny.bundle)
    with pytest.raises(RequestError, match="gives NaN or infinity"):
        models.load("shop", bundle)
    with pytest.raises(OptionError, match="'a/b' cannot name a model"):
        models.load("a/b", tiny.bundle)
    with pytest.raises(BundleError, match="is not a bundle"):
        models.load("shop", tmp_path)
    with pytest.raises(BundleError, match="has no engine 'none'"):
        models.load("shop", tiny.bundle, engine="none")
    monkeypatch.setattr(memory, "free_memory", lambda: 50_000)
    with pytest.raises(memory.NoRoom, match=r"the engine onnxruntime-cpu-fp32 would take about .* beside what serves"):
        models.load("shop", tiny.bundle)
    assert served(models) == [("shop", "1", True)]
