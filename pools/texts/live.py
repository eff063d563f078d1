"""What was generated while running, as sources: bounded, and older text counts less until it is forgotten."""

from collections import OrderedDict
from threading import Lock

import numpy as np

from ...catalog import checks
from ...catalog.errors import OptionError
from .lookup import TextDrafting
from .sources import AnyTokens, Scanned, Source, Tokens, joined
from .suffixes import Sorted

OLD_WEIGHT = 0.5  # of an occurrence in text that is about to be forgotten; in younger text, and in pools, 1
GROUPS = 64  # that have a pool at a time
TAIL = 8  # the newest text is searched unsorted until it is a generation's TAIL-th part


class LivePool:
    """Text generated while running: one pool for each group, and one of all text.

    A pool holds two generations of at most `capacity` / 2 tokens (a text's separator counts as one). When the young
    one is full it becomes the old one, whose occurrences count half, and the old one is dropped. Costs some 20 bytes
    a token and pool, and some microseconds of sorting a token. At most `GROUPS` groups have one: the one that was not
    used for longest is forgotten. Shared by threads.
    """

    def __init__(self, capacity: int = 2**18, reach: int = TextDrafting().reach) -> None:
        """reach: the longest window of `propose` (`TextDrafting.reach`). Raises `OptionError` where capacity is too
        small."""
        reach, capacity = checks.whole_number(reach, "reach"), checks.whole_number(capacity, "capacity")
        if capacity < 4 * reach:
            raise OptionError(f"got a live pool of {capacity} tokens; expected at least {4 * reach}.")
        self._capacity, self._reach = capacity, reach
        self._lock = Lock()
        self._pools: OrderedDict[str | None, _Generations] = OrderedDict()  # the one used last comes last

    def add(self, ids: AnyTokens, group: str | None) -> None:
        """Learn from a finished text [n], its end token included, of a request of `group`."""
        text = np.asarray(ids).astype(np.uint32)
        if not len(text):
            return
        with self._lock:
            for name in {group, None}:
                if name not in self._pools:
                    self._pools[name] = _Generations(self._capacity // 2, self._reach)
                self._pools[name].add(text)
                self._pools.move_to_end(name)
            self._pools.move_to_end(None)
            while len(self._pools) > GROUPS + 1:
                self._pools.popitem(last=False)

    def sources(self, group: str | None) -> list[Source]:
        """What the group's requests draft from: its own text alone; None: everybody's."""
        with self._lock:
            if group not in self._pools:
                return []
            self._pools.move_to_end(group)
            return self._pools[group].sources()


class _Generations:
    """One pool: an old and a young suffix array, and the newest texts unsorted."""

    def __init__(self, most: int, reach: int) -> None:
        self._most, self._reach = most, reach
        self._tail: Source | None = None
        self._young: Source | None = None
        self._old: Source | None = None

    def add(self, text: Tokens) -> None:
        text = text[-(self._most - 1) :]
        if self._size(self._young) + self._size(self._tail) + len(text) + 1 > self._most:
            self._old = Sorted.of(self._all(), self._reach, OLD_WEIGHT)
            self._young = self._tail = None
        self._tail = Scanned(self._and(self._tail, joined([text], self._reach)), self._reach, 1.0)
        if self._size(self._tail) > self._most // TAIL:
            self._young, self._tail = Sorted.of(self._all(), self._reach), None

    def sources(self) -> list[Source]:
        return [source for source in (self._tail, self._young, self._old) if source is not None]

    def _size(self, source: Source | None) -> int:
        return 0 if source is None else len(source.tokens) - self._reach

    def _all(self) -> Tokens:
        """The tokens of the young generation, the newest included."""
        return self._and(self._young, joined([], self._reach) if self._tail is None else self._tail.tokens)

    def _and(self, source: Source | None, tokens: Tokens) -> Tokens:
        """A source's tokens, and others behind them."""
        return tokens if source is None else np.concatenate((source.tokens[: -self._reach], tokens))
