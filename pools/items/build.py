"""Building a pool of items: counting who follows whom, for all pairs at once."""

from array import array
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...catalog import checks
from ...catalog.errors import PoolError
from ...catalog.files import whole_directory
from ...catalog.histories.requests import HistoryRequest
from ...catalog.items import some
from ..files import POOL_FILE, Array, write_arrays, write_facts
from ..groups.file import read_groups
from ..members import Members
from .pool import ItemPoolFacts, encoded_ids, summed

Int64 = NDArray[np.int64]
Progress = Callable[[str, int, int | None], None]

WINDOW = 10  # items: how far behind an item another one follows it; d items behind, it weighs 1/d
MOST_FOLLOWERS = 128  # of one item; the lightest are left out
TOLD = 1000  # histories between two words of progress


class _Histories(NamedTuple):
    """All histories, one after another."""

    ids: dict[str, int]  # item to number
    item: Int64  # [n]
    owner: Int64  # [n] number of the history, ascending
    group: Int64  # [histories] number of the user's group; -1: in none


def build_item_pool(
    entries: Iterable[HistoryRequest], output: Path, *, groups: Path | None = None, overwrite: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> ItemPoolFacts:  # fmt: skip
    """Write a pool of histories to the folder `output`, whole or not at all.

    Of every item, what came within 10 items after it (itself included, where it came again), d items later with the
    weight 1/d, the 128 heaviest; how often every item occurs, at all and in each group. groups: GROUPS.json, user to
    group name. What users asked for besides is not looked at. Raises `PoolError` where there is no history, or none of
    a group.
    """
    output, overwrite = checks.path(output, "output"), checks.flag(overwrite, "overwrite")
    groups = None if groups is None else checks.path(groups, "groups")
    with whole_directory(output, kind=POOL_FILE, replace=overwrite) as folder:
        members = {} if groups is None else read_groups(groups)
        names = tuple(sorted(set(members.values())))
        told = _read(entries, members, names, progress)
        if empty := sorted(set(range(len(names))) - set(told.group.tolist())):
            raise PoolError(
                f"an empty group: no history belongs to {some([names[i] for i in empty])}. Expected histories of every "
                "group: give histories of users that are in it, or take it out of the file of groups."
            )
        progress("counting pairs", 0, 1)
        count = len(told.ids)
        arrays: dict[str, Array] = {
            "ids": encoded_ids(list(told.ids)), "counts": np.bincount(told.item, minlength=count),
            **_followers(told, count), **_of_groups(told, count, len(names)),
        }  # fmt: skip
        member = Members.of(members, names)
        arrays |= {"member_keys": member.keys, "member_groups": member.groups}
        facts = ItemPoolFacts(
            arrays=write_arrays(folder, arrays), histories=len(told.group), interactions=len(told.item), items=count,
            window=WINDOW, groups=names,
        )  # fmt: skip
        write_facts(folder, facts)
        progress("counting pairs", 1, 1)
    return facts


def _read(
    entries: Iterable[HistoryRequest], members: Mapping[str, str], names: tuple[str, ...], progress: Progress
) -> _Histories:
    """Items as numbers, in the order they come. Raises `PoolError` where there is no history."""
    ids: dict[str, int] = {}
    items, lengths, groups = array("q"), array("q"), array("q")
    number: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    for done, entry in enumerate(entries, 1):
        checks.instance(entry, "an entry", HistoryRequest, "what read_histories yields")
        items.extend([ids.setdefault(item, len(ids)) for item in entry.items])
        lengths.append(len(entry.items))
        groups.append(number.get(members.get(entry.user), -1))
        if done % TOLD == 0:
            progress("histories", done, None)
    progress("histories", len(lengths), len(lengths))
    if not items:
        raise PoolError("no history to build a pool of. Expected at least one.")
    owner = np.repeat(np.arange(len(lengths)), np.array(lengths, np.int64))
    return _Histories(ids, np.array(items, np.int64), owner, np.array(groups, np.int64))


def _followers(told: _Histories, count: int) -> dict[str, Array]:
    """Every item's followers, as `ItemPool` keeps them."""
    pair, weight = np.empty(0, np.int64), np.empty(0)
    for distance in range(1, WINDOW + 1):
        same = told.owner[distance:] == told.owner[:-distance]
        found = told.item[:-distance][same] * count + told.item[distance:][same]
        new, times = np.unique(found, return_counts=True)
        pair, weight = summed(np.concatenate([pair, new]), np.concatenate([weight, times / distance]))
    item, follower = np.divmod(pair, count)
    every = np.bincount(item, minlength=count)
    order = np.lexsort((-weight, item))
    rank = np.arange(len(order)) - (np.cumsum(every) - every)[item[order]]
    kept = np.sort(order[rank < MOST_FOLLOWERS])
    starts = np.concatenate([[0], np.cumsum(np.minimum(every, MOST_FOLLOWERS))])
    return {
        "starts": starts, "followers": follower[kept].astype(np.int32), "weights": weight[kept].astype(np.float32),
    }  # fmt: skip


def _of_groups(told: _Histories, count: int, groups: int) -> dict[str, Array]:
    """How often each group's users have every item."""
    group = told.group[told.owner]
    key, times = np.unique(group[group >= 0] * count + told.item[group >= 0], return_counts=True)
    group, item = np.divmod(key, count)
    starts = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=groups))])
    return {"group_starts": starts, "group_items": item.astype(np.int32), "group_counts": times}
