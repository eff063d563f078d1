"""Pools of items: which items followed which in earlier histories, for drafting without a draft model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...catalog import checks
from ...catalog.bounds import Positive, Size
from ...catalog.trie import spans
from ..files import Array, PoolFacts, build_command, check_types, no_pool, open_arrays, read_facts, spans_all, within
from ..members import Members

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

SOURCES = "--items HISTORIES"  # in `build-pool`
TYPES = {  # of every array of a pool
    "ids": "|u1", "counts": "<i8", "starts": "<i8", "followers": "<i4", "weights": "<f4", "group_starts": "<i8",
    "group_items": "<i4", "group_counts": "<i8", "member_keys": "<u8", "member_groups": "<i4",
}  # fmt: skip


class ItemPoolFacts(PoolFacts, frozen=True, kw_only=True):
    """pool.json of a pool of items."""

    kind: Literal["items"] = "items"
    histories: Size
    interactions: Size
    items: Positive
    window: Positive  # how far behind an item another one follows it
    groups: tuple[str, ...]  # names; users of others, or of none, have the pool of all alone


class ItemPool:
    """An opened pool. Immutable, memory-mapped, and shared by threads and processes; it knows no catalog, only ids.

    Its arrays (I items, E pairs of an item and a follower, G groups): ids, a JSON list in UTF-8; counts [I], how often
    each item occurs; starts [I + 1], where each item's part of followers [E] (items, ascending) and weights [E]
    begins; group_starts [G + 1], likewise of group_items and group_counts, what each group's users have; member_keys
    and member_groups (`Members`).
    """

    def __init__(self, path: Path, facts: ItemPoolFacts, arrays: Mapping[str, Array], ids: list[str]) -> None:
        """ids: every item's; see `open`."""
        self.path, self.facts, self.ids = path, facts, ids
        self.counts: Int64 = arrays["counts"]
        self.starts: Int64 = arrays["starts"]
        self.followers: NDArray[np.int32] = arrays["followers"]
        self.weights: Float32 = arrays["weights"]
        self.group_starts: Int64 = arrays["group_starts"]
        self.group_items: NDArray[np.int32] = arrays["group_items"]
        self.group_counts: Int64 = arrays["group_counts"]
        self._members = Members(arrays["member_keys"], arrays["member_groups"])

    @classmethod
    def open(cls, path: str | Path) -> "ItemPool":
        """Open a pool and check every byte of it (0.1 s for 100 MB). Raises `PoolError`."""
        path = checks.path(path, "pool")
        again = build_command(path, SOURCES)
        facts = read_facts(path, "items", ItemPoolFacts, again)
        check_types(path, facts.arrays, TYPES, again)
        arrays = open_arrays(path, facts.arrays, again)
        ids = _decoded(arrays["ids"])
        if not (_consistent(facts, arrays, ids) and _sound(arrays)):
            raise no_pool(path, "items", "they do not fit together, or hold what cannot be", again)
        return cls(path, facts, arrays, ids)

    @property
    def checksum(self) -> str:
        """Of the pool's whole content."""
        return self.facts.checksum

    def group_of(self, user: str) -> int | None:
        """The number of a user's group, after the file the pool was built with; None: in no group."""
        return self._members.group(user)

    def rows(self, items: Int64) -> tuple[Int64, NDArray[np.int32], Float32]:
        """What followed each item [n]: (position in `items` [m], follower [m], weight [m]), one item after another."""
        start = self.starts[items]
        which, at, _ = spans(start, self.starts[items + 1] - start)
        return which, self.followers[at], self.weights[at]


def _consistent(facts: ItemPoolFacts, arrays: Mapping[str, Array], ids: Sequence[str]) -> bool:
    """Whether shapes and numbers fit together, so that nothing reads beyond an end."""
    size = {name: len(array) for name, array in arrays.items()}
    return (
        size["counts"] == facts.items == len(ids) == len(set(ids))
        and size["weights"] == size["followers"]
        and size["group_counts"] == size["group_items"]
        and spans_all(arrays["starts"], facts.items, size["followers"])
        and spans_all(arrays["group_starts"], len(facts.groups), size["group_items"])
        and within(arrays["followers"], facts.items)
        and within(arrays["group_items"], facts.items)
        and Members(arrays["member_keys"], arrays["member_groups"]).sound(len(facts.groups))
    )


def _decoded(ids: Array) -> list[str]:
    """Ids as `encoded_ids` keeps them; none where that is not what they are."""
    try:
        decoded = json.loads(ids.tobytes())
    except (ValueError, RecursionError):
        return []
    return decoded if isinstance(decoded, list) and all(isinstance(id, str) for id in decoded) else []


def _sound(arrays: Mapping[str, Array]) -> bool:
    """Whether counts and weights are such as can be."""
    counted = (arrays["counts"] >= 0).all() and (arrays["group_counts"] >= 0).all()
    return bool(counted and np.isfinite(arrays["weights"]).all() and (arrays["weights"] >= 0).all())


def encoded_ids(ids: Sequence[str]) -> NDArray[np.uint8]:
    """Ids as `ItemPool` keeps them: escaped, as half a surrogate pair has no UTF-8."""
    return np.frombuffer(json.dumps(ids, separators=(",", ":")).encode(), np.uint8)


def summed(key: Int64, weight: NDArray[np.float64]) -> tuple[Int64, NDArray[np.float64]]:
    """Distinct keys, ascending, and the sum of each one's weights; keys are 0 or more."""
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    return key[first], np.add.reduceat(weight[order], first) if len(first) else weight
