"""Which group an id belongs to, as two arrays that a pool keeps: opened at no cost, whatever their size."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..catalog.hashing import text_key
from .files import within


class Members(NamedTuple):
    """Ids by 64 bits of their hash, and the number of each one's group.

    Among n ids, one in none of the groups is taken for a member with a chance of n / 2**64.
    """

    keys: NDArray[np.uint64]  # [n] ascending
    groups: NDArray[np.int32]  # [n]

    @classmethod
    def of(cls, groups: Mapping[str, str], names: Sequence[str]) -> "Members":
        """From id to group name; a group's number is its place in `names`."""
        number = {name: i for i, name in enumerate(names)}
        keys = np.fromiter(map(text_key, groups), np.uint64, len(groups))
        order = np.argsort(keys)
        numbers = np.fromiter((number[name] for name in groups.values()), np.int32, len(groups))
        return cls(keys[order], numbers[order])

    def group(self, id: str) -> int | None:
        """The number of the id's group; None where it is in none."""
        key = np.uint64(text_key(id))
        at = int(np.searchsorted(self.keys, key))
        return int(self.groups[at]) if at < len(self.keys) and self.keys[at] == key else None

    def sound(self, groups: int) -> bool:
        """Whether these are members of so many groups: `keys` ascends, every number is a group's."""
        return (
            len(self.keys) == len(self.groups)
            and bool((self.keys[1:] > self.keys[:-1]).all())
            and within(self.groups, groups)
        )
