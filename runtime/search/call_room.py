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

    def bytes(self, new: int) -> int:
        """What the call takes with so many tokens a row, beside the cache that it is given."""
        call = self.footprint.call(self.batch, new, self.past, max(1, new - self.unscored))
        return call + int(self.children * new) * CHILD


@final
class CallRoom:
    """What the searches of one batch may take, shared by its evaluators: of what a call will take their engines'
    footprints are an estimate, what is taken already is measured."""

    def __init__(self, left: Callable[[int], int]) -> None:
        """left: bytes that may still be taken now, for a call that would take so many."""
        self._left = left
        self._caches: dict[str, tuple[Footprint, int, int, int]] = {}  # by evaluator

    def tokens(self, call: CallSize, most: int) -> int:
        """How many new tokens of each row, of `most`, a call may have: all, or a power of two, at least 1.

        Powers, so that small differences seldom cut calls elsewhere.
        """
        whole = call.bytes(most)
        left = self._left(whole)
        if whole <= left:
            return most
        new = 1
        while 2 * new < most and call.bytes(2 * new) <= left:
            new *= 2
        return new

    def hold(self, evaluator: str, footprint: Footprint, batch: int, length: int, there: int) -> None:
        """An evaluator says what cache it has, or will have: [batch, length], of which so many slots are there."""
        self._caches[evaluator] = footprint, batch, length, there

    def has_room(self, more: int) -> bool:
        """Whether every row of every cache may get so many slots more, and a call of one token still fits."""
        caches = self._caches.values()
        growth = sum(each.cache(batch, length + more - there) for each, batch, length, there in caches)
        call = max((each.call(batch, 1, length + more, 1) for each, batch, length, _ in caches), default=0)
        return growth + call <= self._left(growth + call)
