"""What a pool says of every node's children, one count at a time: see `specbeam.runtime.drafting.retrieval`."""

from collections.abc import Sequence

import numpy as np

from specbeam.catalog.trie import ItemTrie
from specbeam.runtime.drafting import retrieval


def naive_guesses(
    rows: np.ndarray, stories: Sequence[Sequence[str]], members: Sequence[int], history: Sequence[str]
) -> dict[int, dict[int, float]]:
    """Every node's children and their probabilities, one count at a time; members: users of the history's own group."""
    trie = ItemTrie.build(rows)
    paths = {f"i{i}": path_of(trie, int(leaf)) for i, leaf in enumerate(trie.leaf_of)}
    recent = [item for item in reversed(history) if item in paths][: retrieval.LAST]
    weight = retrieval.RECENCY ** np.arange(len(recent))
    common, own, group = (np.zeros(len(trie.parent)) for _ in range(3))
    context = {item: np.zeros(len(trie.parent)) for item in recent}
    for path in paths.values():
        common[path] += retrieval.UNSEEN
    for user, story in enumerate(stories):
        for i, item in enumerate(story):
            common[paths.get(item, [])] += 1
            group[paths.get(item, [])] += user in members
            for distance, later in enumerate(story[i + 1 : i + 11], 1):
                below = paths.get(later, [])
                for past, seen in context.items():
                    if item in paths and paths[item][0] == paths[past][0]:
                        seen[below] += 1 / distance
                own[below] += sum(w for past, w in zip(recent, weight, strict=True) if past == item) / distance

    def guess(children: np.ndarray) -> dict[int, float]:
        share = common[children] / common[children].sum()
        guess = share.copy()
        if trie.depth[children[0]] <= retrieval.DEEPEST:
            for past, part in zip(recent, retrieval.CONTEXT_WEIGHT * weight / weight.sum(), strict=True):
                guess *= (1 + context[past][children] / (retrieval.CONTEXT_COUNTS * share)) ** part
            guess *= (1 + group[children] / (retrieval.CONTEXT_COUNTS * share)) ** retrieval.GROUP_WEIGHT
        guess = own[children] + retrieval.PRIOR_COUNTS * guess / guess.sum()
        return dict(zip(children.tolist(), (guess / guess.sum()).tolist(), strict=True))

    inner = np.flatnonzero(trie.child_count > 0).tolist()
    return {node: guess(trie.children(np.array([node]))[1]) for node in inner}


def path_of(trie: ItemTrie, leaf: int) -> list[int]:
    """From depth 1 to the leaf."""
    path = []
    while leaf > 0:
        path.append(leaf)
        leaf = int(trie.parent[leaf])
    return path[::-1]
