"""Whether the arrays of a pool of texts are what they are said to be: one pass, in pieces, over mapped memory."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import spans_all
from .sources import SEPARATOR, Int32, Tokens
from .suffixes import HALF, MOST_TOKENS, UInt64

PIECE = 1 << 20  # numbers that are looked at together
LOOKED_AT = 1 << 16  # pairs, at most
Sizes = tuple[int, int, int]  # texts, tokens, pairs
Numbers = NDArray[np.integer[Any]]


def check_groups(
    tokens: Tokens, order: Int32, pairs: UInt64, starts: Int32, sizes: Sequence[Sizes], reach: int
) -> str | None:
    """What contradicts `TextPool`'s description of its arrays, or None. sizes: of all texts, then of each group.

    That suffixes are sorted is not looked at: were they not, worse drafts would be found, and none outside the pool.
    """
    return next(_faults(tokens, order, pairs, starts, sizes, reach), None)


def highest_token(tokens: Tokens) -> int:
    """The largest token; -1 where there is none."""
    highest = -1
    for piece in _pieces(tokens):
        highest = max(highest, int(piece.max(initial=0, where=piece != SEPARATOR)))
    return highest


def _faults(
    tokens: Tokens, order: Int32, pairs: UInt64, starts: Int32, sizes: Sequence[Sizes], reach: int
) -> Iterator[str]:
    (texts, words, _), groups = sizes[0], sizes[1:]
    places = texts + words
    if not 0 < places <= MOST_TOKENS or len(tokens) != places + reach or (tokens[places:] != SEPARATOR).any():
        yield f"its {len(tokens)} tokens are not those of {texts} texts, and {reach} separators behind them"
    parts = [words + texts for texts, words, _ in sizes]
    begins, ends = (list(accumulate(counts, initial=0)) for counts in (parts, (pairs for _, _, pairs in sizes)))
    if sum(parts[1:]) > places or len(order) != begins[-1] or len(pairs) != ends[-1]:
        yield f"its {len(order)} places and {len(pairs)} pairs are not those of all texts and of {len(groups)} groups"
    if not spans_all(starts, len(pairs), len(order)) or [int(starts[end]) for end in ends] != begins:
        yield "its pairs do not share out its places"
    first = 0  # of a group's own places, which follow one another
    for (texts, _, _), count, begin in zip(sizes, parts, begins, strict=False):
        yield from _part_faults(tokens[first : first + count], order[begin : begin + count], first, texts)
        first += count if begin else 0
    for begin, end in pairwise(ends):
        if (pairs[begin + 1 : end] <= pairs[begin : end - 1]).any():
            yield "its pairs do not ascend"
    yield from _directory_faults(tokens, order, pairs, starts)


def _part_faults(tokens: Tokens, order: Int32, first: int, texts: int) -> Iterator[str]:
    """One group's tokens [n], which begin at the place `first`, and its order [n]: those n places.

    That each is there once is told by the sums of the places and of their squares: marking them costs many times
    as much, because they lie at random.
    """
    if tokens[0] != SEPARATOR or sum(int((piece == SEPARATOR).sum()) for piece in _pieces(tokens)) != texts:
        yield f"a group's tokens are not those of {texts} texts"
    total = squares = 0
    for piece in _pieces(order):
        if piece.min() < first or piece.max() >= first + len(tokens):
            yield "its order names places that are not there"
        places = piece.astype(np.int64)
        total, squares = total + int(places.sum()), squares + int(places.view(np.uint64) @ places.view(np.uint64))
    last = first + len(tokens) - 1
    if total != _sum(last) - _sum(first - 1) or (squares - _squares(last) + _squares(first - 1)) % 2**64:
        yield "its order does not name every place once"


def _sum(last: int) -> int:
    return last * (last + 1) // 2


def _squares(last: int) -> int:
    return last * (last + 1) * (2 * last + 1) // 6


def _directory_faults(tokens: Tokens, order: Int32, pairs: UInt64, starts: Int32) -> Iterator[str]:
    """Some pairs, spread evenly, against the suffixes that are filed under them."""
    some = np.arange(0, len(pairs), -(-len(pairs) // LOOKED_AT))
    some = some[starts[some] < starts[some + 1]]
    places = order[starts[some]]
    if (pairs[some] != (tokens[places].astype(np.uint64) << HALF | tokens[places + 1])).any():
        yield "its pairs are not those that its places begin with"


def _pieces(array: Numbers) -> Iterator[Numbers]:
    for begin in range(0, len(array), PIECE):
        yield array[begin : begin + PIECE]
