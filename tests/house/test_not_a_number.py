"""NaN never passes for an answer: who is refused, in what words, and that nobody else notices."""

from pathlib import Path

import numpy as np
import pytest

from nan_cases import marked
from scripted_recommender import MODES, PREFIX, SPEC, assert_same, named, pairs
from scripted_search import random_catalog
from specbeam.align.teaching.searcher import Searcher
from specbeam.catalog.errors import EngineError, SpecBeamError
from specbeam.catalog.finite import all_finite, are_logprobs, finite, largest_difference
from specbeam.catalog.hashing import UInt64
from specbeam.catalog.prompts.encoder import PromptEncoder
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.base import Float32
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime import (
    Drafting,
    DraftShape,
    EngineChoice,
    Recommendation,
    Recommender,
    RequestError,
    RequestFailure,
    Verification,
)
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.search.noise import perturbed
from specbeam.runtime.search.scoring import Scoring
from tiny_bundle import ENGINE, Tiny, break_rows

INF, NAN = float("inf"), float("nan")


SOME = 12  # one context in so many is broken


def test_what_is_a_number() -> None:
    assert finite(2, "the loss", "Stop.") == 2.0
    for value in (NAN, INF, -INF):
        with pytest.raises(EngineError, match=r"the loss is (nan|-?inf); expected a finite number\. Stop\."):
            finite(value, "the loss", "Stop.", EngineError)
        with pytest.raises(SpecBeamError, match=r"a time is .*Tune\."):
            all_finite(np.array([[1.0, value], [2.0, 3.0]]), "a time", "Tune.")
    all_finite(np.empty(0), "a time", "Tune.")


def test_what_is_a_log_probability() -> None:
    assert are_logprobs(np.array([-1.0, -INF, 0.0]))
    assert are_logprobs(np.empty((0, 3)))
    for value in (NAN, INF):
        assert not are_logprobs(np.array([-1.0, value, 3.0], np.float32))


def test_the_largest_difference() -> None:
    a = np.array([1.0, -INF, 2.0], np.float32)
    assert largest_difference(a, np.array([1.5, -INF, 2.0])) == 0.5
    assert largest_difference(a, np.array([1.5, 3.0, 2.0])) == INF
    assert np.isnan(largest_difference(a, np.array([1.5, NAN, 9.0])))
    assert np.isnan(largest_difference(a, np.array([NAN, -INF, 2.0])))


def test_a_family_without_any_probability_has_none() -> None:
    logprobs, first = np.array([-INF, -INF, -1.0, -INF, NAN, -1.0, INF, -1.0]), np.array([0, 2, 4, 6])
    scores = Scoring("constrained")(logprobs, first)
    assert scores[:4].tolist() == [-INF, -INF, 0.0, -INF]
    assert np.isnan(scores[4:6]).all()
    assert not are_logprobs(scores[6:])
    keys = perturbed(
        np.array([1.0, 2.0, -INF]), np.array([0, 0, 1, 1, 2]), np.array([-INF, -INF, 0, -INF, -INF]), np.ones(5)
    )
    assert keys.tolist() == [-INF, -INF, 2.0, -INF, -INF]


class Broken(ScriptedEngine):
    """Gives NaN, or infinity, after some contexts."""

    def _logprobs(self, context: UInt64) -> Float32:
        logprobs = super()._logprobs(context)
        kind = context % np.uint64(2 * SOME)
        logprobs[kind == 0] = NAN
        logprobs[kind == 1, ::3] = INF
        return logprobs


def recommenders(
    verification: Verification, batch: int, *, draft: type[ScriptedEngine] | None, target: type[ScriptedEngine] = Broken
) -> tuple[Recommender, Recommender]:
    """One over a broken engine, and one over a whole one that is the same otherwise."""
    rows = random_catalog(np.random.default_rng(5), 60, 3, 5)
    trie = ItemTrie.build(rows)
    both = []
    for whole in (False, True):
        kinds = (ScriptedEngine, ScriptedEngine) if whole else (target, draft or ScriptedEngine)
        engines = [
            kind(len(trie.vocabulary), seed=1, disagreement=d, sharpness=2)
            for kind, d in zip(kinds, (0, 0.4), strict=True)
        ]
        loaded = Loaded(
            named(rows), trie, PromptEncoder(SPEC, trie.item_tokens(), 10_000), engines[0],
            engines[1] if draft else None, engine="made-up (fp16)",
        )  # fmt: skip
        planning = FixedPlanning(DraftShape(6, 2) if draft else None)
        both.append(Recommender(loaded, planning=planning, verification=verification, batching=batch))
    return both[0], both[1]


HISTORIES = [[f"i{i}", f"i{(7 * i) % 60}"][: 1 + i % 2] for i in range(40)]


@pytest.mark.parametrize("draft", [None, ScriptedEngine], ids=["plain", "drafted"])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("mode", MODES)
def test_others_get_the_lists_they_would_have_had(mode: str, batch: int, draft: type[ScriptedEngine] | None) -> None:
    broken, whole = recommenders(MODES[mode], batch, draft=draft)
    requests = [whole.encode(history, user=f"u{i}") for i, history in enumerate(HISTORIES)]
    expected, got = whole.run(requests, 3), broken.run(requests, 3)
    failed = [result for result in got if isinstance(result, RequestFailure)]
    assert 0 < len(failed) < len(got)
    for number, (result, wanted) in enumerate(zip(got, expected, strict=True)):
        assert isinstance(wanted, Recommendation)
        if isinstance(result, RequestFailure):
            assert (result.number, result.user, result.engine) == (number, f"u{number}", "made-up (fp16)")
            assert "made-up (fp16) gives NaN or infinity in place of a log-probability" in result.reason
        else:
            assert_same(pairs(result), pairs(wanted))
    with pytest.raises(RequestError, match=rf"^{len(failed)} of 40 requests .*number {failed[0].number} \(from 0, of "):
        broken.recommend(HISTORIES, 3, users=[f"u{i}" for i in range(40)])
    with pytest.raises(RequestError) as caught:
        broken.recommend(HISTORIES, 3, users=[f"u{i}" for i in range(40)])
    assert caught.value.results == got
    with pytest.raises(RequestError):
        broken.trace(requests[failed[0].number], 3)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("mode", MODES)
def test_a_broken_draft_drafts_nothing_and_changes_no_list(mode: str, batch: int) -> None:
    broken, whole = recommenders(MODES[mode], batch, draft=Broken, target=ScriptedEngine)
    got, expected = (one.recommend(HISTORIES, 3) for one in (broken, whole))
    assert 0 < broken.stats.failed_drafts < len(HISTORIES)
    assert whole.stats.failed_drafts == 0
    for result, wanted in zip(got, expected, strict=True):
        if mode.startswith(("strict", "sampled")):
            assert_same(pairs(result), pairs(wanted))
        assert len(result.items) == len(wanted.items)


def test_nothing_is_learned_from_a_teacher_that_gives_no_numbers() -> None:
    trie = ItemTrie.build(random_catalog(np.random.default_rng(5), 60, 3, 5))
    searcher = Searcher(Broken(len(trie.vocabulary), seed=1), trie, PREFIX, 5)
    with pytest.raises(EngineError, match="of 30 prompts the model gives NaN"):
        searcher.trees([np.array([*PREFIX, token]) for token in range(30)])


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(
    "verification",
    [
        Verification(),
        Verification("sampled", seed=3),
        Verification("tolerant", slack=0.2),
        Verification("relaxed", seed=3),
    ],
    ids=lambda verification: verification.mode,
)
def test_a_nan_row_of_an_engine_s_embedding(tiny: Tiny, bundle: Path, verification: Verification, batch: int) -> None:
    """In all modes: users whose history has the token get a reason, all others what they always got."""
    token, _, holders = marked(tiny)
    break_rows(bundle, [token])
    histories = [[str(i), str(i + 1)] for i in range(16)]
    whole, broken = (
        Recommender.open(
            path,
            verification=verification,
            engine=EngineChoice(threads=1),
            drafting=Drafting(shape=DraftShape(5, 2)),
            batching=batch,
        )
        for path in (tiny.bundle, bundle)
    )
    expected = whole.recommend(histories, 5)
    got = broken.run([broken.encode(history) for history in histories], 5)
    assert 0 < sum(isinstance(result, RequestFailure) for result in got) < len(got)
    for history, result, wanted in zip(histories, got, expected, strict=True):
        assert isinstance(result, RequestFailure) == bool(holders & {*history})
        if isinstance(result, RequestFailure):
            assert result.engine == f"{ENGINE} (fp32)"
        else:
            assert_same(pairs(result), pairs(wanted))
