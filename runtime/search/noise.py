"""Random numbers that depend on nothing but a seed, a request and a prefix: counter-based, so in any order.

The draft and the target see the same noise, a batch changes nothing, and a catalog that a filter has
reduced has the noise of one rebuilt without the forbidden items: trie numbers play no part.
"""

from functools import cached_property

import numpy as np

from ...catalog.hashing import UInt64, mix, uniform
from ...catalog.trie import ItemTrie
from ..types import Float64, Int64

SAMPLE, DRAFT, ACCEPT, CHOOSE, REST, TARGET = range(6)  # what the noise is for: streams that share nothing
STREAMS = 8
ALL_AT_ONCE = 1 << 20  # nodes; of a larger trie hashes are worked out for those that are asked for, each time


class PrefixHashes:
    """A hash of every node's token ids, from the root on, made for the nodes that are asked for."""

    def __init__(self, trie: ItemTrie) -> None:
        self._trie = trie

    def __getitem__(self, nodes: Int64) -> UInt64:
        """Of nodes, any shape."""
        if len(self._trie.parent) <= ALL_AT_ONCE:
            return self._all[nodes]
        return self._of(nodes)

    @cached_property
    def _all(self) -> UInt64:
        """[M] of a small trie, once."""
        return self._of(np.arange(len(self._trie.parent)))

    def _of(self, nodes: Int64) -> UInt64:
        trie, node = self._trie, np.asarray(nodes)
        path = []  # the ancestors of each depth, the deepest first; 0 where the node is not so deep
        for depth in range(trie.length, 0, -1):
            here = node >= trie.level_start[depth]
            path.append(np.where(here, node, 0))
            node = np.where(here, trie.parent[node], node)
        hashes: UInt64 = np.zeros(node.shape, np.uint64)
        for each in reversed(path):
            below = each > 0
            tokens = trie.vocabulary[trie.column[each]].astype(np.uint64)
            hashes = np.where(below, mix(mix(hashes) ^ mix(tokens)), hashes)
        return hashes


def prefix_hashes(trie: ItemTrie) -> PrefixHashes:
    """Of a trie; nothing is worked out before it is asked for."""
    return PrefixHashes(trie)


class Noise:
    """The noise of one batch."""

    def __init__(self, seed: int | UInt64, keys: UInt64, hashes: PrefixHashes | UInt64) -> None:
        """seed: of all requests, or [B] of each; keys [B]: one for every request's user; hashes: of `prefix_hashes`."""
        self._keys, self._hashes = keys, hashes
        self._seeds = np.full(len(keys), seed % 2**64, np.uint64) if isinstance(seed, int) else seed

    def reseat(self, kept: Int64, seeds: UInt64, keys: UInt64) -> None:
        """Of the requests kept [B'], in this order, and behind them of others with these seeds and keys."""
        self._seeds, self._keys = np.append(self._seeds[kept], seeds), np.append(self._keys[kept], keys)
        self.__dict__.pop("_requests", None)

    @cached_property
    def _requests(self) -> UInt64:
        """[B] a hash of every seed and key; most searches never ask for it."""
        return mix(mix(mix(self._seeds)) ^ mix(self._keys))  # twice, so that a seed and a key that change places differ

    def uniform(self, request: Int64, node: Int64, stream: int | Int64) -> Float64:
        """Between 0 and 1 for every (request, node) [n]; `stream` may differ from node to node."""
        which = mix(self._requests[request] ^ np.asarray(stream, np.uint64))
        return uniform(mix(which ^ mix(self._hashes[node])))

    def gumbel(self, request: Int64, node: Int64, stream: int | Int64) -> Float64:
        """Standard Gumbel noise, as `uniform`."""
        noise: Float64 = -np.log(-np.log(self.uniform(request, node, stream)))
        return noise


def perturbed(parent: Float64, which: Int64, logprob: Float64, noise: Float64) -> Float64:
    """Children's Gumbel-perturbed log-probabilities, given that their maximum is their parent's.

    parent [n], which [m] each child's parent (ascending), logprob [m] summed log-probabilities, of which
    siblings' sum to their parent's; noise [m] Gumbel. Kool, van Hoof and Welling 2019, section 4.1 and
    appendix B.3 (the stable form). No child exceeds its parent, and one sibling equals it, unless none has any
    probability: what has none gets minus infinity.
    """
    raw = logprob + noise
    if not len(raw):
        return raw
    first = np.flatnonzero(np.diff(which, prepend=-1))
    largest = np.maximum.reduceat(raw, first)[np.cumsum(np.diff(which, prepend=-1) > 0) - 1]
    limit = parent[which]
    with np.errstate(divide="ignore", invalid="ignore"):  # the largest itself: log(0); what has no probability: NaN
        gap = raw - largest  # at most 0
        v = limit - raw + np.where(gap > -np.log(2), np.log(-np.expm1(gap)), np.log1p(-np.exp(gap)))
        result: Float64 = limit - np.maximum(v, 0) - np.log1p(np.exp(-np.abs(v)))
    result[np.isneginf(raw)] = -np.inf
    return result
