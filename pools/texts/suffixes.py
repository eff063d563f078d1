"""The trie of all windows of a pool's texts, as a suffix array: a node is an interval of sorted suffixes.

The windows of a text are "tokens i+1 ... i+depth" for every i. Sorted, those that begin alike lie side by side: the
interval's width is the frequency that LASER (arXiv 2408.05676) counts in a trie's node, and a whole trie takes one
number a token, made by sorting instead of by insertion.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .sources import SEPARATOR, Int32, Source, Tokens

UInt64 = NDArray[np.uint64]
HALF = np.uint64(32)
MOST_TOKENS = 2**30  # places are 32-bit numbers, and a grouped pool orders every place twice


def sort_suffixes(tokens: Tokens, depth: int) -> Int32:
    """The places [M] of `tokens`, sorted by at least `depth` tokens from each on.

    tokens [T]: as a `Source` has them. Left out are separators that no text follows. Prefix doubling (Manber and
    Myers 1993) with as many ranks in one 64-bit key as fit, so that a pool of 10 M tokens takes three sorts.
    """
    rank = np.minimum(tokens, tokens[tokens != SEPARATOR].max(initial=0) + 1).astype(np.uint64)
    known = 1  # `rank` sorts places by so many tokens
    while True:
        bits = int(rank.max()).bit_length()
        many = min(64 // bits, -(-depth // known))
        key = rank.copy()
        for i in range(1, many):
            key <<= np.uint64(bits)
            key |= _shifted(rank, i * known)
        order = np.argsort(key, kind="stable")
        known *= many
        if known >= depth:
            break
        key = key[order]
        rank[order] = np.cumsum(np.append(False, key[1:] != key[:-1]), dtype=np.uint64)
    return order[: len(order) - _bare(tokens)].astype(np.int32)


def _shifted(rank: UInt64, by: int) -> UInt64:
    """Every place's rank `by` places further on; behind the end is what ranks last, nothing but separators."""
    shifted = np.full_like(rank, rank.max())
    shifted[: len(rank) - by] = rank[by:]
    return shifted


def _bare(tokens: Tokens) -> int:
    """How many separators no text follows: they sort behind everything else."""
    separator = tokens == SEPARATOR
    return int(separator.sum() - (separator[:-1] & ~separator[1:]).sum())


def directory(tokens: Tokens, order: Int32) -> tuple[UInt64, Int32]:
    """The pairs of tokens that sorted suffixes begin with [D], ascending, and where in `order` each begins [D].

    A pair is one number: the first token's, times 2**32, plus the second's.
    """
    pairs = tokens[order].astype(np.uint64) << HALF
    pairs |= tokens[order + 1]
    starts = np.flatnonzero(np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)])
    return pairs[starts], starts.astype(np.int32)


class Sorted(Source):
    """A suffix array: any query is found in microseconds, however long the texts are.

    order [M]: `sort_suffixes`, or a part of it that keeps its order. pairs [D]: `directory`; starts [D + 1]: where in
    `order` each pair's suffixes begin, and the last one's end.
    """

    def __init__(
        self, tokens: Tokens, order: Int32, pairs: UInt64, starts: Int32, reach: int, weight: float = 1.0
    ) -> None:
        super().__init__(tokens, reach, weight)
        self._order, self._pairs, self._starts = order, pairs, starts

    @classmethod
    def of(cls, tokens: Tokens, reach: int, weight: float = 1.0) -> "Sorted":
        """Sort `tokens` [T], which are as a `Source` has them."""
        order = sort_suffixes(tokens, reach)
        pairs, starts = directory(tokens, order)
        return cls(tokens, order, pairs, np.append(starts, np.int32(len(order))), reach, weight)

    def find(self, query: Sequence[int]) -> Int32:
        low, high = self._interval(query)
        return self._order[low:high]

    def _interval(self, query: Sequence[int]) -> tuple[int, int]:
        """The suffixes that begin with `query` and go on, as an interval of `order`."""
        pair = (query[0] << 32) + (query[1] if len(query) > 1 else 0)
        ends = (pair, pair + (1 if len(query) > 1 else SEPARATOR))
        low, high = (int(self._starts[i]) for i in np.searchsorted(self._pairs, np.array(ends, np.uint64)))
        for i in range(2, len(query)):
            low, high = self._narrowed(low, high, i, query[i]), self._narrowed(low, high, i, query[i] + 1)
        # what ends with the query lies behind all that goes on
        if high > low and self.tokens[self._order[high - 1] + len(query)] == SEPARATOR:
            high = self._narrowed(low, high, len(query), SEPARATOR)
        return low, high

    def _narrowed(self, low: int, high: int, i: int, token: int) -> int:
        """The first suffix of an interval whose token i is `token` or above."""
        return bisect_left(self._order, token, low, high, key=lambda place: self.tokens[place + i])
