"""How much of a batch's search one call may hold, where memory is limited: calls are cut, and nothing else changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from ...engines.footprint import Footprint

CHILD = 96  # bytes of a child while its score is looked up and ranked: a dozen arrays of 8, reckoned
STORED = 16  # bytes of a child whose score is kept


@dataclass(frozen=True)
class CallSize:
    """A call that is to be made: so many rows, on so many cached slots, and what every new token brings."""

    footprint: Footprint
    batch: int
    past: int
    unscored: int  # tokens of a row, of all that there may be, that have no row of logits
    children: float  # of all rows together, for each token of a row
    read: int = 0  # tokens of every row's prompt that an encoder has read

    def bytes(self, new: int) -> int:
        """What the call takes with so many tokens a row, beside the cache that it is given."""
        call = self.footprint.call(self.batch, new, self.past, max(1, new - self.unscored), self.read)
        return call + int(self.children * new) * CHILD


@dataclass(frozen=True)
class Held:
    """An evaluator's cache, as it is or will be: [batch, length], of which so many slots are there."""

    footprint: Footprint
    batch: int
    length: int
    there: int
    read: int = 0  # tokens of every row's prompt that an encoder has read, or will have
    unread: bool = False  # it has not yet

    def growth(self, more: int) -> int:
        """Bytes of so many slots more a row, and of what is not there yet."""
        slots = self.length + more - self.there
        return self.footprint.cache(self.batch, slots, self.read if self.unread else 0)

    def call(self, more: int) -> int:
        """Bytes of a call of one token on so many slots more; of one prompt's reading, where that is more."""
        reading = self.footprint.reading
        first = reading.call(1, self.read) if reading is not None and self.unread else 0
        return max(self.footprint.call(self.batch, 1, self.length + more, 1, self.read), first)


@final
class CallRoom:
    """What the searches of one batch may take, shared by its evaluators: of what a call will take their engines'
    footprints are an estimate, what is taken already is measured."""

    def __init__(self, left: Callable[[int], int]) -> None:
        """left: bytes that may still be taken now, for a call that would take so many."""
        self._left = left
        self._caches: dict[str, Held] = {}  # by evaluator

    def tokens(self, call: CallSize, most: int) -> int:
        """How many new tokens of each row, of `most`, a call may have: all, or a power of two, at least 1.

        Powers, so that small differences seldom cut calls elsewhere.
        """
        return self._fitting(call.bytes, most)

    def prompts(self, footprint: Footprint, prompt: int, most: int) -> int:
        """How many prompts of so many tokens, of `most`, an encoder may read at a time, likewise."""
        reading = footprint.reading
        if reading is None:
            return most
        whole = footprint.cache(most, 0, prompt)  # what is read in parts is joined
        return self._fitting(lambda rows: reading.call(rows, prompt) + (whole if rows < most else 0), most)

    def _fitting(self, taken: Callable[[int], int], most: int) -> int:
        """All, or the largest power of two that takes no more than is left, at least 1."""
        whole = taken(most)
        left = self._left(whole)
        if whole <= left:
            return most
        count = 1
        while 2 * count < most and taken(2 * count) <= left:
            count *= 2
        return count

    def hold(self, evaluator: str, cache: Held) -> None:
        """An evaluator says what cache it has, or will have."""
        self._caches[evaluator] = cache

    def has_room(self, more: int) -> bool:
        """Whether every row of every cache may get so many slots more, and a call of one token still fits."""
        caches = self._caches.values()
        needed = sum(each.growth(more) for each in caches) + max((each.call(more) for each in caches), default=0)
        return needed <= self._left(needed)
