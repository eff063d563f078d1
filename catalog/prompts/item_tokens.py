"""Token ids of items as prompts take them: from a table of all, or from the trie, item by item."""

from abc import ABC, abstractmethod
from typing import final

import numpy as np
from numpy.typing import NDArray

from ..identifiers import token_counts
from ..trie import PAD, ItemTrie

Int64 = NDArray[np.int64]


class ItemTokens(ABC):
    """Items' token ids, without an end token: what prompts are put together of."""

    shortest: int  # tokens of the shortest item
    longest: int

    @abstractmethod
    def rows(self, items: Int64) -> Int64:
        """Of some items (catalog positions [n]) as [n, longest], `PAD` behind the shorter ones."""


@final
class TableTokens(ItemTokens):
    """From a table of all items."""

    def __init__(self, table: Int64) -> None:
        """table: [I, L], in catalog order."""
        lengths = token_counts(table)
        self.shortest, self.longest = int(lengths.min()), int(lengths.max())
        self._table = table[:, : self.longest]

    def rows(self, items: Int64) -> Int64:
        return self._table[items]


@final
class TrieTokens(ItemTokens):
    """From a trie, on the way from an item's leaf to the root: nothing is made for all items."""

    def __init__(self, trie: ItemTrie, end_token: int | None) -> None:
        end = int(end_token is not None)
        self.shortest, self.longest = trie.shortest - end, trie.length - end
        self._trie, self._end = trie, end_token

    def rows(self, items: Int64) -> Int64:
        tokens = self._trie.item_tokens(items)
        if self._end is not None:
            tokens[tokens == self._end] = PAD  # only an identifier's last token is the end token
        return tokens[:, : self.longest]
