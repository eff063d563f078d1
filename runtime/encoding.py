"""Histories as requests, checked. No engine is needed for it."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..catalog import checks
from ..catalog.errors import HistoryError, OptionError
from ..catalog.hashing import text_key
from ..catalog.items import Catalog
from ..catalog.prompts.encoder import PromptEncoder
from ..catalog.trie import ItemTrie
from .search.filters import FilterCompiler, ItemFilter
from .types import Bool, Int64, Request

LONGEST = 2**63 - 1  # list that can be asked for where nobody says another one


class RequestEncoder:
    """What a catalog and its prompts make of a history. Safe to share between threads."""

    def __init__(self, catalog: Catalog, trie: ItemTrie, prompts: PromptEncoder, max_k: int | None) -> None:
        """max_k: the longest list that a request may ask for; None: any."""
        self.catalog, self.trie, self.max_k = catalog, trie, max_k
        self.filters = FilterCompiler(catalog, trie)
        self._prompts = prompts

    def encode(
        self, history: Iterable[str | int], *, k: int | None = None, user: str | int | None = None,
        item_filter: ItemFilter | None = None, exclude_history: bool = False,
    ) -> Request:  # fmt: skip
        """See `Recommender.encode`."""
        items = checks.history(history)
        if k is not None:
            k = check_k(k, self.max_k)
        if item_filter is not None:
            checks.instance(item_filter, "item_filter", ItemFilter, "such as ItemFilter(deny={'8'})")
        places = self.catalog.position.find(items)
        known = places[places >= 0]
        if not len(known):
            sample = ", ".join(repr(item) for item in items[:3])
            reason = f"none of its {len(items)} items is in the catalog (e.g. {sample})" if items else "it is empty"
            raise HistoryError(f"A history cannot be used: {reason}. Expected item ids that are keys of the catalog.")
        prompt = self._prompts.encode(known)
        user = None if user is None else checks.as_id(user, "user")
        key = text_key("\0".join(items) if user is None else user)
        excluded = known if checks.flag(exclude_history, "exclude_history") else known[:0]
        allowed = self.filters.compile(item_filter)
        unknown = len(items) - len(known)
        return Request(prompt.ids, known, user, unknown, prompt.shortened, key, k, allowed, excluded, self.trie)

    @property
    def beginning(self) -> Int64:
        """[n] token ids that every prompt begins with."""
        return np.array(self._prompts.spec.prefix_ids, np.int64)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt that the context holds."""
        return self._prompts.max_tokens

    def allowed(self, item_filter: ItemFilter | None) -> Bool | None:
        """[I] the items of the catalog that a filter allows; None: all."""
        compiled = self.filters.compile(item_filter)
        if compiled is None or (compiled.items is not None and not len(compiled.excluded)):
            return None if compiled is None else compiled.items
        return compiled.allows(np.arange(len(self.trie.item)))


def batched(requests: Sequence[Request], size: int) -> list[list[int]]:
    """The requests' numbers, batch by batch: those of about the same length share one."""
    order = np.argsort([len(request.prompt) for request in requests], kind="stable").tolist()
    return [order[start : start + size] for start in range(0, len(order), size)]


def check_k(k: int, most: int | None) -> int:
    """Raise `OptionError` for a list's length that cannot be asked for."""
    if most is not None and isinstance(k, int | np.integer) and k > most:
        raise OptionError(
            f"k is {k}, but this bundle serves lists of at most {most} items. Ask for fewer, or export it again with "
            f"--max-top-k {k}."
        )
    return checks.whole_number(k, "k", most=LONGEST)
