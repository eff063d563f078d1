"""Drafting from a pool as LASER tells it: a trie of dictionaries over all windows, counted one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from specbeam.pools import Branches

Path = tuple[int, ...]


@dataclass
class Node:
    """What followed, and how often."""

    weight: float = 0.0
    children: dict[int, "Node"] = field(default_factory=dict)

    def insert(self, window: Sequence[int], weight: float) -> None:
        node = self
        for token in window:
            node = node.children.setdefault(token, Node())
            node.weight += weight

    def paths(self, above: Path = ()) -> Iterator[tuple[Path, float]]:
        for token, node in self.children.items():
            yield (*above, token), node.weight
            yield from node.paths((*above, token))


def windows(text: Sequence[int], query: Sequence[int], depth: int) -> Iterator[Sequence[int]]:
    """What follows every occurrence of `query` in a text, where anything does."""
    for end in range(len(query), len(text)):
        if list(text[end - len(query) : end]) == list(query):
            yield text[end : end + depth]


def best_branches(
    context: Sequence[int], texts: Sequence[tuple[Sequence[int], float]], *, query: int, depth: int, most: int,
    prompt_weight: float, min_share: float = 0.0, suffixes: int = 1,
) -> list[tuple[Path, float]]:  # fmt: skip
    """Paths and shares of one request's branches, best first; texts: each with the weight of its occurrences.

    suffixes: how many are used, the longest that is known first; each shorter one counts a 64th.
    """
    root, scale = Node(), 1.0
    for length in range(min(query, len(context)), 0, -1):
        found = False
        for text, weight in (*texts, (context, prompt_weight)):
            for window in windows(text, context[-length:], depth):
                root.insert(window, weight * scale)
                found |= weight > 0
        scale /= 64 if found else 1
        if scale == 64**-suffixes:
            break
    total = sum(node.weight for node in root.children.values())
    counted = [(path, weight) for path, weight in root.paths() if weight and weight >= min_share * total]
    ranked = sorted(counted, key=lambda entry: (-entry[1], len(entry[0]), entry[0]))[:most]
    return [(path, weight / total) for path, weight in ranked]


def paths_of(branches: Branches, requests: int) -> list[list[tuple[Path, float]]]:
    """The same of proposed branches, request by request; checks what `Branches` promises."""
    paths: list[Path] = []
    result: list[list[tuple[Path, float]]] = [[] for _ in range(requests)]
    for i, (request, parent, token, depth, share) in enumerate(zip(*(part.tolist() for part in branches), strict=True)):
        assert parent < i
        assert parent < 0 or (branches.request[parent] == request and share <= branches.share[parent])
        paths.append((*paths[parent], token) if parent >= 0 else (token,))
        assert len(paths[-1]) == depth
        result[request].append((paths[-1], share))
    assert (branches.request[1:] >= branches.request[:-1]).all()
    return result
