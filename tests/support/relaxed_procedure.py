"""Relaxed verification by enumeration: every draw, every acceptance, every choice, with its probability."""

from collections.abc import Iterator
from itertools import combinations, permutations

import numpy as np

from scripted_search import scored_children
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.types import DraftShape

Nodes = frozenset[int]
Distribution = dict[Nodes, float]


class Procedure:
    """The distribution over sets of leaves that the class text of `RelaxedVerifier` describes.

    For catalogs none of whose prefixes has an only child. A frontier here holds the finished leaves as well.
    """

    def __init__(
        self, trie: ItemTrie, target: ScriptedEngine, draft: ScriptedEngine, prompt: np.ndarray, k: int,
        shape: DraftShape | None, temperature: float, scoring: str = "full",
    ) -> None:  # fmt: skip
        self.trie, self.k, self.shape, self.temperature = trie, k, shape, temperature
        self._steps = [self._logprobs(engine, prompt, scoring) for engine in (draft, target)]
        self._seen: dict[tuple[Nodes, Nodes], Distribution] = {}

    def _logprobs(self, engine: ScriptedEngine, prompt: np.ndarray, scoring: str) -> dict[int, float]:
        """Every node's log-probability after its parent."""
        paths: dict[int, tuple[int, ...]] = {0: ()}
        result = {}
        for node in range(len(self.trie.parent)):
            for child, token, logprob in scored_children(self.trie, engine, prompt, node, paths[node], scoring):
                paths[child], result[child] = (*paths[node], token), logprob
        return result

    def result(self) -> Distribution:
        """The distribution of the list, as a set."""
        return self._rounds(frozenset([0]), frozenset())

    def _rounds(self, frontier: Nodes, known: Nodes) -> Distribution:
        """From a frontier on; `known` is what the target evaluated before."""
        if not self._inner(frontier):
            return {frontier: 1.0}
        if (frontier, known) in self._seen:
            return self._seen[frontier, known]
        total: Distribution = {}
        for chance, levels in self._drafts(frontier, frontier, known, 1):
            evaluated = known | self._inner(frontier.union(*(drawn for drawn, _ in levels)))
            for at, p in self._verified(frontier, evaluated, levels, True).items():
                for leaves, q in self._rounds(at, evaluated).items():
                    total[leaves] = total.get(leaves, 0.0) + chance * p * q
        self._seen[frontier, known] = total
        return total

    def _drafts(
        self, beams: Nodes, frontier: Nodes, known: Nodes, level: int
    ) -> Iterator[tuple[float, list[tuple[Nodes, dict[int, float]]]]]:
        """All drafts from a level on: their chance, and what each level drew from which weights."""
        kids = self._children(beams)
        if self.shape is None or level > self.shape.length or not self._inner(kids):
            yield 1.0, []
            return
        weights = {kid: self._weight(kid, frontier, known) for kid in kids}
        for drawn, chance in draws(weights, min(self.shape.width, len(kids))).items():
            for more, deeper in self._drafts(drawn, frontier, known, level + 1):
                yield chance * more, [(drawn, weights), *deeper]

    def _verified(
        self, frontier: Nodes, evaluated: Nodes, levels: list[tuple[Nodes, dict[int, float]]], trusted: bool
    ) -> Distribution:
        """Where the frontier gets to in one round."""
        running = self._inner(frontier)
        if not running or not running <= evaluated:
            return {frontier: 1.0}
        finished, kids = frontier - running, self._children(frontier)
        p = normalised({kid: self._weight(kid, frozenset(), evaluated) for kid in kids})
        total: Distribution = {}
        wanted = min(self.k - len(finished), len(kids))
        if levels and trusted and self._inner(kids):
            drawn, weights = levels[0]
            branches = accepted_or_not(p, normalised({kid: weights[kid] for kid in kids}), drawn & kids, wanted)
        else:
            branches = ((chance, chosen, trusted) for chosen, chance in draws(p, wanted).items())
        for chance, chosen, still in branches:
            for at, more in self._verified(chosen | finished, evaluated, levels[1:], still).items():
                total[at] = total.get(at, 0.0) + chance * more
        return total

    def _weight(self, node: int, frontier: Nodes, known: Nodes) -> float:
        """exp(score / temperature), the scores behind the frontier the target's where it knows them, or the draft's."""
        score, below = 0.0, True
        while node:
            below = below and node not in frontier
            parent = int(self.trie.parent[node])
            score += self._steps[not below or parent in known][node]
            node = parent
        return float(np.exp(score / self.temperature))

    def _children(self, nodes: Nodes) -> Nodes:
        return frozenset(self.trie.children(np.array(sorted(nodes)))[1].tolist())

    def _inner(self, nodes: Nodes) -> Nodes:
        return frozenset(node for node in nodes if self.trie.child_count[node])


def accepted_or_not(
    p: dict[int, float], q: dict[int, float], drawn: Nodes, wanted: int
) -> Iterator[tuple[float, Nodes, bool]]:
    """(chance, chosen, whether all were accepted ones) of one step whose level was drafted."""
    for size in range(len(drawn) + 1):
        for accepted in map(frozenset, combinations(sorted(drawn), size)):
            chance = 1.0
            for node in drawn:
                rate = min(1.0, p[node] / q[node])
                chance *= rate if node in accepted else 1 - rate
            if chance == 0:
                continue
            if size >= wanted:
                ways = [frozenset(way) for way in combinations(sorted(accepted), wanted)]
                yield from ((chance / len(ways), way, True) for way in ways)
                continue
            left = wanted - size
            residual = {n: p[n] - q[n] for n in p if n not in accepted and p[n] > q[n]}
            for first, a in draws(residual, min(left, len(residual))).items():
                others = {n: p[n] for n in p if n not in accepted | first}
                for second, b in draws(others, left - len(first)).items():
                    yield chance * a * b, accepted | first | second, False


def draws(weights: dict[int, float], n: int) -> Distribution:
    """Every set of n drawn one after another without replacement, with its probability."""
    result: Distribution = {}
    whole = sum(weights.values())
    for order in permutations(weights, n):
        left, chance = whole, 1.0
        for node in order:
            chance *= weights[node] / left
            left -= weights[node]
        result[frozenset(order)] = result.get(frozenset(order), 0.0) + chance
    return result


def normalised(weights: dict[int, float]) -> dict[int, float]:
    whole = sum(weights.values())
    return {node: weight / whole for node, weight in weights.items()}
