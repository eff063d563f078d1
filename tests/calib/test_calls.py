"""Calls recorded from searches: what they hold, how histories are drawn, and that they can be run again."""

from pathlib import Path

import numpy as np
import pytest

from calib_cases import logprobs
from specbeam.calib.calls import Calls, Recorder, record_calls, replay, stratified
from specbeam.catalog.errors import HistoryError, OptionError
from specbeam.engines.base import Engine, ForwardInputs, causal
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.registry import load_engine
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime import Drafting, EngineChoice, Recommender
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.types import DraftShape
from tiny_bundle import ENGINE, Tiny

HISTORIES = [[str((7 * i + j) % 40) for j in range(1 + i % 9)] for i in range(60)]


@pytest.fixture(scope="module")
def engines(tiny: Tiny) -> tuple[Bundle, Engine, Engine]:
    bundle = Bundle.open(tiny.bundle)
    target, draft = (load_engine(bundle, role, ENGINE, threads=1) for role in ("target", "draft"))
    return bundle, target, draft


def tokens(calls: Calls) -> list[list[int]]:
    return [[int(token) for inputs in search for token in inputs.input_ids[0]] for search in calls.searches]


def test_searches_are_recorded_whole(engines: tuple[Bundle, Engine, Engine]) -> None:
    bundle, target, draft = engines
    calls = record_calls(bundle, HISTORIES, target, draft, count=9, k=4, shape=DraftShape(4, 2))
    assert set(calls) == {"target", "draft"}
    for of_role in calls.values():
        assert len(of_role.searches) == 9
        assert of_role.count == sum(map(len, of_role.searches))
        assert all(inputs.input_ids.shape[0] == 1 for search in of_role.searches for inputs in search)
    prompts = [search[0].position_ids[0].tolist() for search in calls["draft"].searches]
    assert [len(prompt) for prompt in prompts] == [1 + 3 * items for items in range(1, 10)]
    assert all(prompt == list(range(len(prompt))) for prompt in prompts)
    drafted = [
        search[0].input_ids.shape[1] - len(p) for search, p in zip(calls["target"].searches, prompts, strict=True)
    ]
    assert min(drafted) >= 0 < max(drafted)
    assert any(len(search) > 1 for search in calls["target"].searches)


def test_without_a_draft_the_target_s_calls_are_beam_search_s(engines: tuple[Bundle, Engine, Engine]) -> None:
    bundle, target, _ = engines
    calls = record_calls(bundle, HISTORIES, target, None, count=3, k=2)
    assert set(calls) == {"target"}
    assert {len(search) for search in calls["target"].searches} <= {2, 3}


def test_the_seed_draws_the_histories(engines: tuple[Bundle, Engine, Engine]) -> None:
    bundle, target, _ = engines
    drawn = [tokens(record_calls(bundle, HISTORIES, target, None, count=5, seed=s, k=1)["target"]) for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("count", [1, 7, 60, 100])
def test_draws_cover_all_lengths(count: int) -> None:
    lengths = [i % 20 for i in range(60)]
    chosen = stratified(lengths, count, seed=0)
    assert len(set(chosen)) == min(count, 60)
    drawn = [lengths[i] for i in chosen]
    assert drawn == sorted(drawn)
    if count == 7:
        assert drawn[0] < 3
        assert drawn[-1] > 16


def test_histories_that_cannot_be_used(engines: tuple[Bundle, Engine, Engine]) -> None:
    bundle, target, _ = engines
    some = record_calls(bundle, [["gone"], ["1", "gone"], []], target, None, count=5, k=1)["target"]
    assert len(some.searches) == 1
    with pytest.raises(HistoryError, match="None of 1 histories has an item"):
        record_calls(bundle, [["gone"]], target, None, count=1)
    with pytest.raises(OptionError, match="got 0 histories"):
        record_calls(bundle, HISTORIES, target, None, count=0)


def test_recorded_calls_run_again(engines: tuple[Bundle, Engine, Engine]) -> None:
    bundle, target, draft = engines
    calls = record_calls(bundle, HISTORIES, target, draft, count=4, k=4, shape=DraftShape(4, 2))
    for role, engine in (("target", target), ("draft", draft)):
        again = [rows.copy() for rows in replay(engine, calls[role])]
        graph = Path(bundle.path, role, "model.onnx")
        assert len(again) == calls[role].count
        for one, two in zip(again, logprobs(graph, calls[role]), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-4)


def test_recording_changes_nothing(engines: tuple[Bundle, Engine, Engine], tiny: Tiny) -> None:
    bundle, target, draft = engines
    recommender = Recommender.open(
        bundle, engine=EngineChoice(threads=1), drafting=Drafting(shape=DraftShape(4, 2)), batching=1
    )
    expected = recommender.recommend(HISTORIES[:5], 4)
    trie = bundle.trie()
    loaded = Loaded(bundle.catalog(), trie, bundle.prompts(trie), Recorder(target), Recorder(draft))
    recorded = Recommender(loaded, planning=recommender.planning, batching=1)
    assert [r.items for r in recorded.recommend(HISTORIES[:5], 4)] == [r.items for r in expected]


def inputs(past: int, new: int) -> ForwardInputs:
    ids = np.arange(new)[None]
    return ForwardInputs(ids, ids + past, *causal(past, new), ids[:, -1:])


def test_what_searches_share_is_recorded_once() -> None:
    engine = ScriptedEngine(5)
    recorder = Recorder(engine)
    beginning = recorder.new_cache(1)
    recorder.forward(inputs(0, 4), beginning)
    said = []
    for _ in range(3):
        cache = beginning.copy()
        cache.keep(np.zeros(1, np.int64))
        said += [recorder.forward(inputs(4, 2), cache).copy(), recorder.forward(inputs(6, 3), cache).copy()]
    recorder.new_cache(1)  # one that nothing is asked of
    calls = recorder.calls(seed=0)
    assert len(calls.shared) == 1
    assert [len(search) for search in calls.searches] == [2, 2, 2]
    assert calls.count == 7
    again = [rows.copy() for rows in replay(engine, calls)]
    np.testing.assert_array_equal(again[1:], said)


def test_some_searches_are_spread_over_all() -> None:
    searches = tuple((inputs(0, n),) for n in range(1, 11))
    calls = Calls(searches, (), 3)
    assert [search[0].input_ids.shape[1] for search in calls.some(3).searches] == [1, 5, 10]
    assert calls.some(50).searches == searches
    assert calls.some(1).searches == searches[:1]
    assert calls.some(3).seed == 3


def test_more_than_one_request_is_not_recorded() -> None:
    recorder = Recorder(ScriptedEngine(5))
    with pytest.raises(AssertionError, match="padding"):
        recorder.forward(inputs(0, 2), recorder.new_cache(2))
