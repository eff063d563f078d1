"""Helpers for the tests of the loop: sessions over scripted engines, and the naive search they must equal."""

from collections.abc import Sequence

import numpy as np

from specrec.catalog.trie import ItemTrie
from specrec.engines.scripted import ScriptedEngine
from specrec.runtime.draft import Drafter, ModelDrafter, NoDrafter
from specrec.runtime.evaluator import TreeEvaluator
from specrec.runtime.prefix import SharedPrefix
from specrec.runtime.session import Session
from specrec.runtime.stats import DecodeStats
from specrec.runtime.types import DraftShape


def random_catalog(rng: np.random.Generator, items: int, length: int, codes: int) -> np.ndarray:
    """Identifiers [items, length] whose level d has tokens of its own; rows may repeat."""
    return 10 + np.arange(length) * codes + rng.integers(0, codes, (items, length))


def search(
    trie: ItemTrie,
    target: ScriptedEngine,
    prompts: Sequence[np.ndarray],
    width: int,
    *,
    draft: ScriptedEngine | None = None,
    shape: DraftShape | None = None,
    reuse: bool = True,
    shared: int = 0,
) -> tuple[list[list[tuple[int, float]]], TreeEvaluator, DecodeStats]:
    """Per prompt the ranked (leaf, score) pairs that the session finds, and what it cost.

    shared: how many tokens all prompts begin with, to be computed once.
    """
    prefix = prompts[0][:shared]
    stats = DecodeStats(trie.length)
    evaluator = TreeEvaluator(SharedPrefix(target, prefix), trie, prompts, stats, "target")
    drafter: Drafter = NoDrafter(len(prompts))
    if draft is not None:
        own = TreeEvaluator(SharedPrefix(draft, prefix), trie, prompts, stats, "draft")
        drafter = ModelDrafter(own, trie, shape or DraftShape())
    frontier = Session(evaluator, drafter, trie, stats, reuse=reuse).run(len(prompts), min(width, trie.identifiers))
    ranked = [
        [(int(n), float(s)) for n, s in zip(nodes, scores, strict=True) if n >= 0]
        for nodes, scores in zip(frontier.nodes, frontier.scores, strict=True)
    ]
    return ranked, evaluator, stats


def naive_beam_search(
    trie: ItemTrie, target: ScriptedEngine, prompt: np.ndarray, width: int
) -> list[tuple[int, float]]:
    """Beam search over plain sequences: no cache, no mask, no tree; ties as the design says."""
    beams: list[tuple[int, tuple[int, ...], float]] = [(0, (), 0.0)]
    for _ in range(trie.length):
        grown = []
        for node, tokens, score in beams:
            logprobs = target.logprobs_after(np.array([*prompt, *tokens]))
            first = int(trie.first_child[node])
            for child in range(first, first + int(trie.child_count[node])):
                token = int(trie.vocabulary[trie.column[child]])
                grown.append((child, (*tokens, token), score + float(logprobs[trie.column[child]])))
        beams = sorted(grown, key=lambda beam: -beam[2])[:width]  # stable
    return [(node, score) for node, _, score in beams]
