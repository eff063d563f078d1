"""Searching with scripted engines, and the same searches by the naive book."""

from collections.abc import Sequence

import numpy as np

from specbeam.catalog.trie import PAD, ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.drafting.drafter import BeamDrafter, Drafter, NoDrafter, SampledDrafter
from specbeam.runtime.drafting.guesses import ModelGuesses
from specbeam.runtime.options import Verification
from specbeam.runtime.planning.policy import FixedPlanning, Planning
from specbeam.runtime.search.call_room import CallRoom
from specbeam.runtime.search.evaluator import TreeEvaluator
from specbeam.runtime.search.nodes import EvaluatedNodes
from specbeam.runtime.search.noise import SAMPLE, Noise, prefix_hashes
from specbeam.runtime.search.prefix import SharedPrefix
from specbeam.runtime.search.relaxed import RelaxedVerifier
from specbeam.runtime.search.scoring import Scoring
from specbeam.runtime.search.trie_view import TrieView
from specbeam.runtime.search.verify import StrictVerifier, TolerantVerifier, Verifier
from specbeam.runtime.session import Session
from specbeam.runtime.stats import DecodeStats
from specbeam.runtime.types import CompiledFilter, DraftShape, Round

END = 5  # the end token of catalogs of unequal lengths
Ranked = list[tuple[int, float]]  # (leaf, score), best first


def random_catalog(rng: np.random.Generator, items: int, length: int, codes: int) -> np.ndarray:
    """Identifiers [items, length] whose level d has tokens of its own; rows may repeat."""
    return 10 + np.arange(length) * codes + rng.integers(0, codes, (items, length))


def ragged_catalog(rng: np.random.Generator, items: int, length: int, codes: int) -> np.ndarray:
    """Identifiers of 1 to `length` tokens out of `codes`, many the beginning of others, each with an end token."""
    rows = np.full((items, length + 1), PAD)
    for row, size in zip(rows, rng.integers(1, length + 1, items), strict=True):
        row[:size] = 10 + rng.integers(0, codes, size)
        row[size] = END
    return rows


def live_mask(trie: ItemTrie, leaves: Sequence[int]) -> np.ndarray:
    """Nodes that lead to one of the leaves."""
    live = np.zeros(len(trie.parent), bool)
    for leaf in leaves:
        node = int(leaf)
        while node >= 0:
            live[node] = True
            node = int(trie.parent[node])
    return live


def filter_of(trie: ItemTrie, live: np.ndarray) -> CompiledFilter:
    """A filter that leaves some nodes."""
    return CompiledFilter(None, live, 0, int(live[trie.child_count == 0].sum()))


def search(
    trie: ItemTrie,
    target: ScriptedEngine,
    prompts: Sequence[np.ndarray],
    width: int | Sequence[int],
    *,
    draft: ScriptedEngine | None = None,
    shape: DraftShape | None = None,
    reuse: bool = True,
    shared: int = 0,
    verification: Verification | None = None,
    live: Sequence[np.ndarray | None] | None = None,
    keys: Sequence[int] | None = None,
    planning: Planning | None = None,
    rounds: list[Round] | None = None,
    room: CallRoom | None = None,
) -> tuple[list[Ranked], TreeEvaluator, DecodeStats]:
    """Per prompt the ranked (leaf, score) pairs that the session finds, and what it cost.

    shared: how many tokens all prompts begin with, to be computed once; live: a mask of nodes for every
    request that has a filter; keys: of the requests' users (default: 0, 1, ...); room: what calls may take of memory.
    """
    prefix, batch = prompts[0][:shared], len(prompts)
    verification = verification or Verification()
    temperature = 1.0 if verification.temperature is None else verification.temperature
    scoring = Scoring(verification.scoring or "full")
    if verification.mode == "sampled":
        scoring = Scoring("constrained", temperature)
    filters = None if live is None else [None if mask is None else filter_of(trie, mask) for mask in live]
    view = TrieView(trie, scoring.kind, filters)
    users = np.array(keys if keys is not None else range(batch), np.uint64)
    noise = Noise(verification.seed or 0, users, prefix_hashes(trie))
    perturbing = noise if verification.mode == "sampled" else None
    stats = DecodeStats(trie.length)
    nodes = EvaluatedNodes(view, scoring, perturbing)
    evaluator = TreeEvaluator(
        SharedPrefix(target, prefix, limited=room is not None), view, nodes, prompts, stats, "target", room
    )
    drafter: Drafter = NoDrafter(verification.mode, batch)
    if draft is not None:
        known = EvaluatedNodes(view, scoring, perturbing)
        own = ModelGuesses(TreeEvaluator(SharedPrefix(draft, prefix), view, known, prompts, stats, "draft", room))
        drafter = BeamDrafter(verification.mode, own, view)
        if verification.mode == "relaxed":
            drafter = SampledDrafter(own, view, noise, temperature)
    verifier: Verifier = StrictVerifier(verification.mode, view)
    if verification.mode == "relaxed":
        verifier = RelaxedVerifier(view, noise, temperature)
    if verification.mode == "tolerant":
        verifier = TolerantVerifier(view, verification.slack or 0.0)
    planning = planning or FixedPlanning(None if draft is None else shape or DraftShape())
    widths = np.minimum(np.broadcast_to(width, batch), view.leaves(batch))
    everyone = np.arange(batch)
    root = np.zeros(batch) if perturbing is None else perturbing.gumbel(everyone, everyone * 0, SAMPLE)
    session = Session(evaluator, drafter, verifier, planning, view, stats, reuse=reuse, rounds=rounds)
    finished = session.run(widths, root).finished
    ranked = [
        [(int(n), float(s)) for n, s in zip(leaves, scores, strict=True) if n >= 0]
        for leaves, scores in zip(finished.nodes, finished.scores, strict=True)
    ]
    return ranked, evaluator, stats


def naive_beam_search(
    trie: ItemTrie,
    target: ScriptedEngine,
    prompt: np.ndarray,
    width: int,
    *,
    scoring: str = "full",
    live: np.ndarray | None = None,
) -> Ranked:
    """Beam search over plain sequences: no cache, no mask, no tree; ties and finishing as the design says."""
    beams: list[tuple[int, tuple[int, ...], float]] = [(0, (), 0.0)]
    finished: Ranked = []
    while beams:
        grown = []
        for node, tokens, score in beams:
            for child, token, logprob in scored_children(trie, target, prompt, node, tokens, scoring, live):
                grown.append((child, (*tokens, token), score + logprob))
        grown.sort(key=lambda beam: -beam[2])  # stable
        finished += [(node, score) for node, _, score in grown[:width] if not trie.child_count[node]]
        finished = sorted(finished, key=lambda pair: -pair[1])[:width]
        beams = [beam for beam in grown if trie.child_count[beam[0]]][:width]
        if beams and len(finished) == width and beams[0][2] <= finished[-1][1]:
            break
    return finished


def scored_children(
    trie: ItemTrie, target: ScriptedEngine, prompt: np.ndarray, node: int, tokens: tuple[int, ...], scoring: str,
    live: np.ndarray | None = None, temperature: float = 1.0,
) -> list[tuple[int, int, float]]:  # fmt: skip
    """(child, its token, its log-probability) of one node, from one plain sequence."""
    logprobs = target.logprobs_after(np.array([*prompt, *tokens])).astype(np.float64)
    first = int(trie.first_child[node])
    children = [c for c in range(first, first + int(trie.child_count[node])) if live is None or live[c]]
    values = np.array([logprobs[trie.column[child]] for child in children])
    if scoring == "constrained" and children:
        values = values / temperature
        values -= np.log(np.exp(values - values.max()).sum()) + values.max()
    return [(c, int(trie.vocabulary[trie.column[c]]), float(v)) for c, v in zip(children, values, strict=True)]


def all_leaves(
    trie: ItemTrie, target: ScriptedEngine, prompt: np.ndarray, *, scoring: str = "full",
    live: np.ndarray | None = None, temperature: float = 1.0,
) -> Ranked:  # fmt: skip
    """Every leaf with its score, best first: brute force."""
    found: Ranked = []
    stack: list[tuple[int, tuple[int, ...], float]] = [(0, (), 0.0)]
    while stack:
        node, tokens, score = stack.pop()
        if not trie.child_count[node]:
            found.append((node, score))
            continue
        for child, token, logprob in scored_children(trie, target, prompt, node, tokens, scoring, live, temperature):
            stack.append((child, (*tokens, token), score + logprob))
    return sorted(found, key=lambda pair: -pair[1])
