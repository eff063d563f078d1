"""How far relaxed verification's lists are from undisturbed sampling, on a catalog small enough to know the truth."""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.shared import dump, print_table
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.drafting.drafter import BeamDrafter, Drafter, NoDrafter, SampledDrafter
from specbeam.runtime.drafting.guesses import ModelGuesses
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.search.evaluator import TreeEvaluator
from specbeam.runtime.search.nodes import EvaluatedNodes
from specbeam.runtime.search.noise import Noise, prefix_hashes
from specbeam.runtime.search.prefix import SharedPrefix
from specbeam.runtime.search.relaxed import RelaxedVerifier
from specbeam.runtime.search.scoring import Scoring
from specbeam.runtime.search.trie_view import TrieView
from specbeam.runtime.search.verify import StrictVerifier, Verifier
from specbeam.runtime.session import Session
from specbeam.runtime.stats import DecodeStats
from specbeam.runtime.types import DraftShape, Mode

Array = NDArray[np.float64]
BATCH = 4000  # users in one search
ITEMS, CODES = 300, (64, 8, 8)  # many first tokens, as real identifiers have: fewer than K would all be taken
LENGTH = len(CODES)
Measures = dict[str, Array]


class World(NamedTuple):
    """One catalog, one prompt and its target."""

    trie: ItemTrie
    target: ScriptedEngine
    prompt: NDArray[np.int64]

    def draft(self, disagreement: float) -> ScriptedEngine:
        columns, seed, sharpness = self.target.columns, self.target.seed, self.target.sharpness
        return ScriptedEngine(columns, seed=seed, disagreement=disagreement, sharpness=sharpness)


class Run(NamedTuple):
    """What many users of one world got."""

    inclusion: Array  # [M] of every node (0 unless it is a leaf), how often a list held it
    score: Array  # [M] the leaves' log-probabilities, where any list held them
    calls: float  # of the target, a user


def sampled_lists(
    world: World, mode: Mode, users: int, k: int, seed: int,
    draft: ScriptedEngine | None = None, shape: DraftShape | None = None,
) -> Run:  # fmt: skip
    """The lists of `users` users who differ in nothing but their noise."""
    count, score, calls = np.zeros(len(world.trie.parent)), np.zeros(len(world.trie.parent)), 0
    for start in range(0, users, BATCH):
        keys = np.arange(start, min(start + BATCH, users)).astype(np.uint64)
        nodes, scores, batch_calls = search(world, mode, keys, k, seed, draft, shape)
        there = nodes >= 0
        count += np.bincount(nodes[there], minlength=len(count))
        score[nodes[there]] = scores[there]
        calls += batch_calls
    return Run(count / users, score, calls / users)


def search(
    world: World, mode: Mode, keys: NDArray[np.uint64], k: int, seed: int,
    draft: ScriptedEngine | None, shape: DraftShape | None,
) -> tuple[NDArray[np.int64], Array, int]:  # fmt: skip
    """One batch: leaves [B, k] and their scores, and the target's calls, summed."""
    view, scoring, stats = TrieView(world.trie, "constrained"), Scoring("constrained"), DecodeStats(LENGTH)
    noise, prompts = Noise(seed, keys, prefix_hashes(world.trie)), [world.prompt] * len(keys)
    shared = noise if mode == "sampled" else None

    def evaluator(engine: ScriptedEngine, timer: str) -> TreeEvaluator:
        prefix = SharedPrefix(engine, np.empty(0, np.int64))
        return TreeEvaluator(prefix, view, EvaluatedNodes(view, scoring, shared), prompts, stats, timer)

    target = evaluator(world.target, "target")
    drafter: Drafter = NoDrafter(mode, len(keys))
    if draft is not None:
        own = ModelGuesses(evaluator(draft, "draft"))
        drafter = SampledDrafter(own, view, noise, 1.0) if mode == "relaxed" else BeamDrafter(mode, own, view)
    verifier: Verifier = RelaxedVerifier(view, noise, 1.0) if mode == "relaxed" else StrictVerifier(mode, view)
    session = Session(target, drafter, verifier, FixedPlanning(shape), view, stats)
    finished = session.run(np.full(len(keys), k), np.zeros(len(keys))).finished
    return finished.nodes, finished.scores, int(target.calls.sum())


def probabilities(world: World, engine: ScriptedEngine) -> Array:
    """[M] the exact probability of every leaf: a beam search that keeps all."""
    alone = world._replace(target=engine)
    run = sampled_lists(alone, "strict", 1, world.trie.identifiers, seed=0)
    return np.where(run.inclusion > 0, np.exp(run.score), 0.0)


def inclusion_without_replacement(p: Array, most: int) -> Array:
    """[most, n] the chance that each of n outcomes is among the first K drawn without replacement, K = 1 to `most`.

    Outcome i arrives after an exponential time of rate p[i]; it is among the first K if fewer than K others
    have arrived by then: an integral over its time, by Gauss-Legendre on [0, 1), of a Poisson-binomial tail.
    """
    x, weight = np.polynomial.legendre.leggauss(256)
    x, weight = (x + 1) / 2, weight / 2
    scale = float(most)  # a time by which about `most` have arrived
    time, weight = scale * x / (1 - x), weight * scale / (1 - x) ** 2
    stays = np.exp(-np.outer(p, time))  # [n, T]
    arrived = np.zeros((most, len(p), len(time)))  # chance that exactly 0, 1, ... others have arrived
    arrived[0] = 1
    for j in range(len(p)):
        stay = np.repeat(stays[None, j], len(p), axis=0)
        stay[j] = 1  # nobody waits for itself
        arrived[1:] = arrived[1:] * stay + arrived[:-1] * (1 - stay)
        arrived[0] *= stay
    density = p[:, None] * stays * weight
    return (np.cumsum(arrived, axis=0) * density).sum(axis=2)


def distance(a: Array, b: Array) -> float:
    """Total variation of two inclusion frequencies, each divided by its sum."""
    return float(np.abs(a / a.sum() - b / b.sum()).sum()) / 2


def chance(inclusion: Array, users: int) -> float:
    """The distance that a run of so many users will have to the exact inclusion, of itself."""
    return float(np.sqrt(2 / np.pi * inclusion * (1 - inclusion) / users).sum() / inclusion.sum()) / 2


def worlds(count: int, sharpness: float) -> list[World]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        trie = ItemTrie.build(10 + 100 * np.arange(LENGTH) + rng.integers(0, CODES, (ITEMS, LENGTH)))
        target = ScriptedEngine(len(trie.vocabulary), seed=number, sharpness=sharpness)
        made.append(World(trie, target, rng.integers(0, 1000, 5)))
    return made


def measure(
    world: World, k: int, factors: Sequence[int], disagreements: Sequence[float], draws: int,
    exact: Array, done: Callable[[], object],
) -> Measures:  # fmt: skip
    """One K in one world, whose exact inclusion is `exact` [M]; `done` is told of every run."""
    users, shape = max(draws // k, 1), (len(disagreements), len(factors))
    one, two = (sampled_lists(world, "relaxed", users, k, seed) for seed in (1, 2))
    sampled = sampled_lists(world, "sampled", users, k, seed=3)
    done()
    bias, calls, exact_calls = np.zeros((3, *shape))
    for at in np.ndindex(shape):
        draft, drafting = world.draft(disagreements[at[0]]), DraftShape(factors[at[1]] * k, LENGTH - 1)
        run = sampled_lists(world, "relaxed", users, k, 10 + int(np.ravel_multi_index(at, shape)), draft, drafting)
        bias[at], calls[at] = distance(run.inclusion, one.inclusion), run.calls
        # its lists are those of `sampled`; only their price is new
        exact_calls[at] = sampled_lists(world, "sampled", users // 10 + 1, k, 3, draft, drafting).calls
        done()
    return {
        "bias": bias, "calls": calls, "bias by chance": np.array(distance(one.inclusion, two.inclusion)),
        "sampled": np.array(distance(sampled.inclusion, exact)), "sampled by chance": np.array(chance(exact, users)),
        "sampled calls": exact_calls, "relaxed without a draft": np.array(distance(one.inclusion, exact)),
    }  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=40_000, help="sequences per number and catalog; default 40000")
    parser.add_argument("--worlds", type=int, default=2, help="catalogs, each with a target (default: %(default)s)")
    parser.add_argument("--top-k", type=int, nargs="+", default=[1, 2, 5, 10, 20])
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 2, 4], help="drafted N per K")
    parser.add_argument("--disagreements", type=float, nargs="+", default=[0.0, 0.1, 0.4], help="of the drafts")
    parser.add_argument("--sharpness", type=float, default=2.0, help="of the scripted distributions")
    parser.add_argument("--output", help="write the result as JSON")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    widths, factors, disagreements = options.top_k, options.factors, options.disagreements
    found: dict[int, list[Measures]] = {k: [] for k in widths}
    apart, made = [], worlds(options.worlds, options.sharpness)
    with tqdm(total=len(made) * len(widths) * (1 + len(factors) * len(disagreements)), disable=None) as bar:
        for world in made:
            p = probabilities(world, world.target)
            exact = np.zeros((max(widths), len(p)))
            exact[:, p > 0] = inclusion_without_replacement(p[p > 0], max(widths))
            apart.append([distance(p, probabilities(world, world.draft(d))) for d in disagreements])
            for k in widths:
                found[k].append(measure(world, k, factors, disagreements, options.draws, exact[k - 1], bar.update))
    mean = {
        k: {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]} for k, parts in found.items()
    }
    report(mean, np.mean(apart, axis=0), factors)
    facts = {"n_per_k": factors, "disagreements": disagreements, "target_to_draft": np.mean(apart, axis=0).tolist()}
    results = [{"k": k, **{name: value.tolist() for name, value in parts.items()}} for k, parts in mean.items()]
    dump(options.output, {**facts, "draws": options.draws, "results": results})


def report(mean: dict[int, Measures], apart: Array, factors: Sequence[int]) -> None:
    """apart: total variation of target and draft, for every disagreement."""
    print(
        "Relaxed verification with N drafted nodes a depth: total variation of how often each item is in a list to the "
        f"same draws without a draft; in brackets the target calls a list ({LENGTH} without a draft). By chance: two "
        "runs without a draft.\n"
    )
    heads, bias, calls = ["target to draft", "K", *(f"N = {factor}K" for factor in factors)], [], []
    for j, gap in enumerate(apart.tolist()):
        for k, part in mean.items():
            pairs = zip(part["bias"][j].tolist(), part["calls"][j].tolist(), strict=True)
            cells = [f"{distant:.3f} ({price:.2f})" for distant, price in pairs]
            bias.append([f"{gap:.2f}", k, *cells, f"{float(part['bias by chance']):.3f}"])
            calls.append([f"{gap:.2f}", k, *part["sampled calls"][j].tolist()])
    print_table([*heads, "by chance"], bias)
    print("\nTo the exact chances of K items drawn without replacement (`sampled` needs no allowance for a draft):\n")
    names = ["sampled", "sampled by chance", "relaxed without a draft"]
    print_table(["K", *names], [[k, *(f"{float(part[name]):.3f}" for name in names)] for k, part in mean.items()])
    print("\nTarget calls of `sampled`, whose lists are the same whatever is drafted:\n")
    print_table(heads, calls)


if __name__ == "__main__":
    main()
