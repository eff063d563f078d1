"""`generate` under the trie, which the lossless tests take for the truth, against a search sequence by sequence."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from benchmarks.shared import Ranked, TrieGenerate, leaf_identifiers, ranking_fault
from specbeam.catalog.trie import PAD, ItemTrie
from specbeam.evaluate.generate import Mask
from tiny_models import make_model

END, ROWS = 3, 24
Path = tuple[int, ...]
Scoring = Literal["full", "constrained"]
SCORINGS: tuple[Scoring, ...] = ("full", "constrained")


class NaiveSearch:
    """Beam search over identifiers [n][L], every sequence run through the model by itself and from its beginning."""

    def __init__(self, model: Any, prompt: Sequence[int], identifiers: Sequence[Path], scoring: Scoring) -> None:
        self._model, self._prompt, self._whole, self._scoring = model, list(prompt), set(identifiers), scoring
        self._next: dict[Path, set[int]] = {}
        for identifier in identifiers:
            for depth, token in enumerate(identifier):
                self._next.setdefault(identifier[:depth], set()).add(token)

    def children(self, path: Path) -> dict[Path, float]:
        """The log-probability of every child."""
        with torch.inference_mode():
            row = self._model(torch.tensor([[*self._prompt, *path]])).logits[0, -1].double().log_softmax(-1)
        allowed = sorted(self._next[path])
        if self._scoring == "constrained":
            row = row - row[allowed].logsumexp(0)
        return {(*path, token): row[token].item() for token in allowed}

    def __call__(self, k: int) -> list[tuple[Path, float]]:
        running: list[tuple[Path, float]] = [((), 0.0)]
        finished: list[tuple[Path, float]] = []
        while running:
            found = [(p, score + own) for path, score in running for p, own in self.children(path).items()]
            found.sort(key=lambda entry: -entry[1])
            finished += [entry for entry in found[:k] if entry[0] in self._whole]
            finished = sorted(finished, key=lambda entry: -entry[1])[:k]
            running = [entry for entry in found if entry[0] not in self._whole][:k]
            if len(finished) == k and running and running[0][1] <= finished[-1][1]:
                break
        return finished


def ragged(seed: int, count: int = 30, end: bool = True) -> list[Path]:
    """Distinct identifiers of one to four tokens, many of them beginnings of others, and the end token behind each."""
    rng = np.random.default_rng(seed)
    rows = {tuple(rng.choice([4, 5, 9, 17], rng.integers(1, 5)).tolist()) for _ in range(count)}
    return [(*row, END) if end else row for row in sorted(rows)]


def trie_of(identifiers: Sequence[Path]) -> ItemTrie:
    width = max(map(len, identifiers))
    return ItemTrie.build(np.array([[*path, *[PAD] * (width - len(path))] for path in identifiers]))


def named(trie: ItemTrie, identifiers: Sequence[Path], ranked: Ranked) -> list[tuple[Path, float]]:
    names = leaf_identifiers(trie, [tuple(map(str, path)) for path in identifiers])
    return [(tuple(map(int, names[leaf])), score) for leaf, score in ranked]


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 2, 3, 5, 12])
def test_identifiers_of_unequal_length(seed: int, k: int, scoring: Scoring) -> None:
    identifiers = ragged(seed)
    assert any(a[:-1] == b[: len(a) - 1] for a in identifiers for b in identifiers if a != b)  # beginnings of others
    model, trie = make_model(rows=ROWS, seed=seed), trie_of(identifiers)
    generate = TrieGenerate(model, trie, end_token=END, scoring=scoring)
    lengths = set()
    for number in range(3):
        prompt = np.random.default_rng([seed, number]).integers(4, ROWS, 6)
        got = named(trie, identifiers, generate(prompt, k))
        expected = NaiveSearch(model, prompt.tolist(), identifiers, scoring)(k)
        assert len(expected) == k
        assert ranking_fault(got, expected) is None, (got, expected)
        lengths |= {len(path) for path, _ in got}
    assert k < 5 or len(lengths) > 1


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("mask", ["function", "arrays"])
@pytest.mark.parametrize("k", [1, 5, 99])
def test_prompts_of_unequal_length_in_one_call(k: int, mask: Mask, scoring: Scoring) -> None:
    identifiers = ragged(3)
    model, trie = make_model(rows=ROWS, seed=3), trie_of(identifiers)
    generate = TrieGenerate(model, trie, end_token=END, scoring=scoring).masked_by(mask)
    prompts = [np.random.default_rng(length).integers(4, ROWS, length) for length in (9, 2, 5)]
    for prompt, ranked in zip(prompts, generate.batch(prompts, k), strict=True):
        expected = NaiveSearch(model, prompt.tolist(), identifiers, scoring)(k)
        assert ranking_fault(named(trie, identifiers, ranked), expected) is None


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("end", [True, False])
def test_identifiers_of_one_length(end: bool, scoring: Scoring) -> None:
    identifiers = [path for path in ragged(0, 200, end) if len(path) == 3 + end]
    model, trie = make_model(rows=ROWS), trie_of(identifiers)
    generate = TrieGenerate(model, trie, end_token=END if end else None, scoring=scoring)
    for k in (1, 4, 20):
        expected = NaiveSearch(model, [2, 8, 9], identifiers, scoring)(k)
        assert ranking_fault(named(trie, identifiers, generate(np.array([2, 8, 9]), k)), expected) is None


@pytest.mark.parametrize("scoring", SCORINGS)
def test_a_list_as_long_as_the_catalog_is_the_full_ranking(scoring: Scoring) -> None:
    identifiers = ragged(4, 12)
    model, trie = make_model(rows=ROWS, seed=4), trie_of(identifiers)
    got = named(trie, identifiers, TrieGenerate(model, trie, end_token=END, scoring=scoring)(np.array([2, 7]), 99))
    search = NaiveSearch(model, [2, 7], identifiers, scoring)
    scores = {
        path: sum(search.children(path[:depth])[path[: depth + 1]] for depth in range(len(path)))
        for path in identifiers
    }
    assert ranking_fault(got, sorted(scores.items(), key=lambda entry: -entry[1])) is None
    if scoring == "constrained":
        assert sum(np.exp(score) for _, score in got) == pytest.approx(1, abs=1e-4)


def test_a_model_that_would_end_elsewhere_goes_on() -> None:
    """Without an end token the model's own eos, here within an identifier, ends nothing."""
    identifiers = [(4, END, 5), (4, END, 9), (5, 9, END)]
    model, trie = make_model(rows=ROWS), trie_of(identifiers)
    for k in (1, 3):
        expected = NaiveSearch(model, [2, 8], identifiers, "full")(k)
        assert ranking_fault(named(trie, identifiers, TrieGenerate(model, trie)(np.array([2, 8]), k)), expected) is None


@pytest.mark.parametrize(
    "setting",
    [
        {"repetition_penalty": 3.0}, {"no_repeat_ngram_size": 1}, {"suppress_tokens": [4, 9]},
        {"begin_suppress_tokens": [4]}, {"forced_eos_token_id": 5}, {"forced_bos_token_id": 17},
        {"bad_words_ids": [[5]]}, {"sequence_bias": [[[9], -9.0]]}, {"length_penalty": -4.0}, {"min_new_tokens": 4},
        {"exponential_decay_length_penalty": [0, 9.0]}, {"renormalize_logits": True}, {"max_time": 1e-9},
        {"early_stopping": True, "num_beams": 3}, {"max_length": 4}, {"eos_token_id": [4, 9]},
        {"do_sample": True, "top_k": 1, "temperature": 0.1}, {"guidance_scale": 3.0}, {"use_cache": False},
        {"watermarking_config": {"bias": 9.0}}, {"stop_strings": ["x"]}, {"cache_implementation": "static"},
        {"num_return_sequences": 2, "num_beams": 2}, {"output_hidden_states": True}, {"prompt_lookup_num_tokens": 3},
    ],
    ids=str,
)  # fmt: skip
def test_none_of_the_checkpoints_own_settings_is_obeyed(setting: dict[str, Any]) -> None:
    identifiers = ragged(1)
    model, trie = make_model(rows=ROWS, seed=1), trie_of(identifiers)
    model.generation_config = own = GenerationConfig(**setting)
    for scoring in SCORINGS:
        generate = TrieGenerate(model, trie, end_token=END, scoring=scoring)
        for k in (1, 4):
            expected = NaiveSearch(model, [2, 9, 4, 5], identifiers, scoring)(k)
            got = named(trie, identifiers, generate(np.array([2, 9, 4, 5]), k))
            assert ranking_fault(got, expected) is None, (got, expected)
    assert model.generation_config is own  # the model is given back as it was


def test_unequal_lengths_need_an_end_token() -> None:
    with pytest.raises(ValueError, match="no end token"):
        TrieGenerate(make_model(rows=ROWS), trie_of([(4, 5), (5,)]))


def test_items_that_share_a_leaf_have_its_identifier() -> None:
    trie = trie_of([(7, END), (5, 6, END), (7, END), (5, END)])
    names = leaf_identifiers(trie, [("g",), ("e", "f"), ("g",), ("e",)])
    assert {trie.item_offset[leaf + 1] - trie.item_offset[leaf]: name for leaf, name in names.items()}[2] == ("g",)
    assert sorted(names.values()) == [("e",), ("e", "f"), ("g",)]
    assert all(trie.child_count[leaf] == 0 for leaf in names)
