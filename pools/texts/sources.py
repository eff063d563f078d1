"""Texts as arrays of tokens, and what says where in them a query occurs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Tokens = NDArray[np.uint32]
AnyTokens = NDArray[np.integer[Any]] | Sequence[int]

SEPARATOR = 2**32 - 1  # stands between texts: no token, and sorted behind all of them
BEGINNING = (SEPARATOR,)  # the query that what texts begin with follows


class Source(ABC):
    """Texts that a draft may be taken from. Immutable, and shared by threads.

    tokens [T]: a separator, a text, a separator, a text, ..., and behind the last at least `reach` separators.
    weight: what one occurrence counts.
    """

    def __init__(self, tokens: Tokens, reach: int, weight: float) -> None:
        self.tokens, self.reach, self.weight = tokens, reach, weight

    @abstractmethod
    def find(self, query: Sequence[int]) -> Int32 | Int64:
        """All places [m] where `query` begins and is followed by a token of the same text."""

    def windows(self, depth: int) -> Tokens:
        """[T - depth + 1, depth] the tokens from each place on: a view."""
        shape, strides = (len(self.tokens) - depth + 1, depth), 2 * self.tokens.strides
        return np.ndarray(shape, np.uint32, self.tokens, strides=strides)


class Scanned(Source):
    """A short text, or a few: searched by comparing every token."""

    def find(self, query: Sequence[int]) -> Int32 | Int64:
        last = len(query) - 1
        at = (self.tokens[last : len(self.tokens) - self.reach] == query[-1]).nonzero()[0]
        for i in reversed(range(last)):
            at = at[self.tokens[at + i] == query[i]]
        goes_on: Int64 = at[self.tokens[at + len(query)] != SEPARATOR]
        return goes_on


def joined(texts: Sequence[AnyTokens], reach: int) -> Tokens:
    """Texts as a source has them: a separator before each, `reach` of them behind the last."""
    tokens = np.full(sum(map(len, texts)) + len(texts) + reach, SEPARATOR, np.uint32)
    at = 1
    for text in texts:
        tokens[at : at + len(text)] = text
        at += len(text) + 1
    return tokens
