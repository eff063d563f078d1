"""The loop is lossless where an encoder reads the prompts: of the target, of the draft, and of both."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted_reader import START, ScriptedReader
from scripted_recommender import assert_same, make
from scripted_search import naive_beam_search, random_catalog, search
from specbeam.catalog.errors import EngineError
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.base import ForwardInputs, causal
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.search.prefix import SharedPrefix
from specbeam.runtime.stats import DecodeStats
from specbeam.runtime.types import DraftShape

FAMILIES = {"both": (True, True), "the target": (True, False), "the draft": (False, True)}


@pytest.mark.parametrize("who", FAMILIES)
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_speculative_equals_plain_equals_naive(who: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    trie = ItemTrie.build(random_catalog(rng, int(rng.integers(1, 120)), int(rng.integers(1, 5)), 5))
    kinds = [ScriptedReader if reads else ScriptedEngine for reads in FAMILIES[who]]
    target, draft = (
        kind(len(trie.vocabulary), seed=seed % 1000, disagreement=d) for kind, d in zip(kinds, (0.0, 0.4), strict=True)
    )
    prompts = [rng.integers(0, 99, rng.integers(1, 30)) for _ in range(int(rng.integers(1, 6)))]
    width, reuse, shape = int(rng.integers(1, 20)), bool(rng.random() < 0.8), DraftShape(int(rng.integers(1, 20)), 2)
    speculative, evaluator, _ = search(trie, target, prompts, width, draft=draft, shape=shape, reuse=reuse)
    plain, _, _ = search(trie, target, prompts, width)
    for prompt, fast, slow in zip(prompts, speculative, plain, strict=True):
        asked = (target.behind(prompt), np.array([START])) if isinstance(target, ScriptedReader) else (target, prompt)
        naive = naive_beam_search(trie, *asked, width)
        assert_same(slow, naive)
        assert_same(fast, naive)
    assert evaluator.prompt_tokens == max(map(len, prompts))
    assert (evaluator.calls <= trie.length).all()


def test_another_prompt_gives_another_list() -> None:
    rng = np.random.default_rng(1)
    trie = ItemTrie.build(random_catalog(rng, 100, 3, 5))
    target = ScriptedReader(len(trie.vocabulary))
    one, padded, other = (
        search(trie, target, prompts, 5)[0][0]
        for prompts in ([np.array([4, 5])], [np.array([4, 5]), np.array([4, 5, 0])], [np.array([4, 5, 0])])
    )
    assert_same(one, padded)
    assert one != other


def test_calls_are_counted_with_what_was_read() -> None:
    """Prompts are new tokens of the first call, as the planner believes of all models, and cached in later ones."""
    recommender = make(random_catalog(np.random.default_rng(2), 100, 3, 5), reads=True)
    requests = [recommender.encode(recommender.catalog.item_ids[:n]) for n in (3, 6)]
    stats, prompt = DecodeStats(recommender.trie.length, log=[]), len(requests[1].prompt)
    flight = recommender._search.flight(requests, 4, FixedPlanning(None), stats)
    while flight.running:
        flight.round()
    assert stats.log is not None
    first, *later = stats.log
    assert (first.past, first.new, first.prompt) == (0, prompt + 1, prompt + 1)
    assert [(call.prompt, call.past > prompt) for call in later] == [(0, True)] * (recommender.trie.length - 1)


def test_nothing_is_shared_where_an_encoder_reads() -> None:
    assert SharedPrefix(ScriptedReader(3), np.arange(40)).length == 0


def test_engines_say_how_their_caches_begin() -> None:
    with pytest.raises(EngineError, match="ScriptedReader has an encoder: its caches begin with prompts"):
        ScriptedReader(3).new_cache(1)
    with pytest.raises(EngineError, match="ScriptedEngine has no encoder: its prompts are decoded"):
        ScriptedEngine(3).read([np.array([1])])


def test_rows_that_are_kept_and_joined_keep_their_prompts() -> None:
    """Prompts are padded to the longer cache's, and nobody reads the padding."""
    engine = ScriptedReader(5)
    prompts = [np.array([3, 4, 5]), np.array([9]), np.array([6, 2])]
    alone = [_answer(engine, [prompt])[0] for prompt in prompts]
    one, other = engine.read(prompts[:2]), engine.read(prompts[2:])
    one.keep(np.array([1, 0]))
    for cache in (one, other):
        engine.forward(_start(cache.batch), cache)
    other.join(one)
    assert (other.batch, other.length, other.read) == (3, 1, 3)
    again = ForwardInputs(*(np.full((3, 1), n) for n in (START, 1)), *causal(1, 1, 3), np.zeros((3, 1), np.int64))
    got = engine.forward(again, other)[:, 0]
    for row, number in enumerate((2, 1, 0)):
        cache = engine.read([prompts[number]])
        engine.forward(_start(1), cache)
        single = ForwardInputs(*(np.full((1, 1), n) for n in (START, 1)), *causal(1, 1), np.zeros((1, 1), np.int64))
        np.testing.assert_allclose(got[row], engine.forward(single, cache)[0, 0], atol=1e-6)
    assert not np.allclose(alone[0], alone[1])


def _start(batch: int) -> ForwardInputs:
    zero = np.zeros((batch, 1), np.int64)
    return ForwardInputs(zero + START, zero, *causal(0, 1, batch), zero)


def _answer(engine: ScriptedReader, prompts: list[np.ndarray]) -> np.ndarray:
    return engine.forward(_start(len(prompts)), engine.read(prompts))[:, 0]
