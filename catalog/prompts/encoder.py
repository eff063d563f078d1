"""Prompts at run time: token ids are put together, no tokenizer is needed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bounds import Positive, Whole
from ..checks import Checked
from ..errors import PromptError
from ..identifiers import token_counts
from ..trie import PAD
from .item_tokens import ItemTokens, TableTokens

Int64 = NDArray[np.int64]


class PromptSpec(Checked, frozen=True):
    """A prompt without its tokenizer: prefix, items joined by the separator (oldest first), suffix."""

    template: str  # the text the ids were made from, with "{history}" where the items go
    separator: str
    prefix_ids: tuple[Whole, ...]
    separator_ids: tuple[Whole, ...]
    suffix_ids: tuple[Whole, ...]
    history_length: Positive  # at most so many items, the most recent ones


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """One request's prompt."""

    ids: Int64  # [T]
    kept: int  # items in it
    shortened: bool  # fewer items than min(history_length, len(history)): the context would not hold them


class PromptEncoder:
    """Turns histories into token ids by a `PromptSpec`.

    `items` tells every item's token ids, or is a table of them, [I, L] in catalog order, `PAD` behind the shorter
    ones; `max_tokens` is the longest prompt that the context holds. Raises `PromptError` when that leaves no
    room for the longest item alone.
    """

    def __init__(self, spec: PromptSpec, items: ItemTokens | Int64, max_tokens: int) -> None:
        self.spec, self.max_tokens = spec, max_tokens
        self._prefix, self._separator, self._suffix = (
            np.array(ids, np.int64) for ids in (spec.prefix_ids, spec.separator_ids, spec.suffix_ids)
        )
        self._items = TableTokens(items) if isinstance(items, np.ndarray) else items
        shortest, longest = self._items.shortest, self._items.longest
        frame, gap = len(self._prefix) + len(self._suffix), len(self._separator)
        if frame + longest > max_tokens:
            raise PromptError(
                f"the prompt does not fit: one item of {longest} tokens and {frame} tokens around the "
                f"history, but the context leaves {max_tokens}. Use a shorter template or a model with more context."
            )
        self._ragged = shortest < longest
        self._room = max_tokens - frame + gap  # for items with a separator each
        self.max_items = min(spec.history_length, self._room // (shortest + gap))  # the most items a prompt can hold

    def of_items(self, items: ItemTokens | Int64) -> "PromptEncoder":
        """The same prompts of another catalog's items."""
        return PromptEncoder(self.spec, items, self.max_tokens)

    def encode(self, items: Int64 | Sequence[int]) -> EncodedPrompt:
        """The prompt of a history given as catalog positions, oldest first: the most recent items that fit.

        Raises `PromptError` on an empty history.
        """
        if len(items) == 0:
            raise PromptError("the history is empty; expected at least one item of the catalog.")
        rows = self._items.rows(np.asarray(items[-self.max_items :], np.int64))
        gap = len(self._separator)
        if self._ragged:
            room = np.cumsum(token_counts(rows[::-1]) + gap)
            rows = rows[len(rows) - int(np.searchsorted(room, self._room, side="right")) :]
        kept = len(rows)
        joined = np.concatenate((np.broadcast_to(self._separator, (kept, gap)), rows), axis=1).ravel()[gap:]
        if self._ragged:
            joined = joined[joined != PAD]
        ids = np.concatenate((self._prefix, joined, self._suffix))
        return EncodedPrompt(ids, kept, kept < min(self.spec.history_length, len(items)))
