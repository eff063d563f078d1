"""The users whose lists are compared, and the lists of float32 on the CPU; kept for all parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.hardware.kit.parts import Job
from benchmarks.hardware.kit.sources import PUBLIC, public_data
from benchmarks.public import as_ranked, real_users, rows_of
from specbeam.catalog.errors import HistoryError
from specbeam.catalog.files import whole_file
from specbeam.catalog.histories.read import read_histories
from specbeam.catalog.histories.requests import HistoryRequest
from specbeam.engines.bundle.items import Bundle
from specbeam.runtime import Recommendation, Verification

Ranked = list[tuple[tuple[str, ...], float]]  # identifiers with their scores, best first
MODES = {
    "strict, full": Verification(scoring="full"),
    "strict, constrained": Verification(scoring="constrained"),
    "sampled": Verification("sampled", seed=11),
}
MOST_ITEMS = 12  # of a history that is made up


class Users(NamedTuple):
    """Whom lists are for."""

    names: list[str]
    histories: list[list[str]]

    def first(self, count: int) -> "Users":
        return Users(self.names[:count], self.histories[:count])


def pair(job: Job) -> Bundle:
    """The bundle that all parts run."""
    return Bundle.open(job.work / "pair")


def all_users(job: Job, bundle: Bundle) -> Users:
    """As many users as are there, up to the size's: of the file that was named, of the public data, or made up."""
    count, catalog = job.sizes.users, bundle.catalog()
    if job.histories is not None:
        known = set(catalog.item_ids)
        entries = (one for one in read_histories([job.histories]) if isinstance(one, HistoryRequest))
        fitting = [one for one in entries if known & set(one.items)]
        if not fitting:
            raise HistoryError(f"{job.histories}: no history holds an item of the catalog. Expected the pair's users.")
        names, histories = [one.user for one in fitting], [list(one.items) for one in fitting]
    elif job.setup.pair == PUBLIC:
        names, histories, _ = real_users(_public())
    else:
        histories = made_histories(catalog.item_ids, count, 1)
        names = [f"u{i}" for i in range(count)]
    step = max(len(names) // count, 1)
    return Users(names[::step][:count], histories[::step][:count])


def other_histories(job: Job, bundle: Bundle) -> list[list[str]]:
    """What a pool is made of: what is known before the users' next items."""
    if job.histories is None and job.setup.pair == PUBLIC:
        train, valid = (rows_of(_public(), part) for part in ("train", "valid"))
        return [items + valid.get(user, []) for user, items in train.items() if items]
    if job.histories is not None:
        entries = (one for one in read_histories([job.histories]) if isinstance(one, HistoryRequest))
        return [list(one.items) for one in entries if one.items]
    return made_histories(bundle.catalog().item_ids, 4 * job.sizes.users, 2)


def made_histories(items: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """Random ones; few items are in many."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, MOST_ITEMS + 1, count)
    return [[items[int(len(items) * x**2)] for x in rng.random(length)] for length in lengths]


def _public() -> Path:
    found = public_data()
    if found is None:
        raise HistoryError("The public data is not here any more: SPECBEAM_DATA named the folder that holds it.")
    return found[0]


def keep_users(job: Job, users: Users) -> None:
    with whole_file(job.work / "users.json", replace=True) as file:
        file.write(msgspec.json.encode(users))


def kept_users(job: Job) -> Users:
    return msgspec.json.decode((job.work / "users.json").read_bytes(), type=Users)


def keep_reference(job: Job, mode: str, k: int, lists: Sequence[Ranked]) -> None:
    """The lists of float32 on the CPU without a draft."""
    path = _reference(job, mode, k)
    path.parent.mkdir(exist_ok=True)
    with whole_file(path, replace=True) as file:
        file.write(msgspec.json.encode(lists))


def reference(job: Job, mode: str, k: int) -> list[Ranked]:
    return msgspec.json.decode(_reference(job, mode, k).read_bytes(), type=list[Ranked])


def _reference(job: Job, mode: str, k: int) -> Path:
    return job.work / "reference" / f"{mode.replace(', ', '-')}-{k}.json"


def ranked(results: Sequence[Recommendation]) -> list[Ranked]:
    return [as_ranked(result) for result in results]


def same(ours: Sequence[Ranked], theirs: Sequence[Ranked]) -> int:
    """How many lists have the same identifiers in the same order."""
    return sum([a for a, _ in x] == [b for b, _ in y] for x, y in zip(ours, theirs, strict=True))


def overlap(ours: Sequence[Ranked], theirs: Sequence[Ranked]) -> float:
    """The mean share of a list's identifiers that another list holds, too."""
    shares = [
        len({a for a, _ in x} & {b for b, _ in y}) / max(len(y), 1) for x, y in zip(ours, theirs, strict=True) if y
    ]
    return float(np.mean(shares)) if shares else 1.0


def largest_gap(ours: Sequence[Ranked], theirs: Sequence[Ranked]) -> float:
    """The largest difference of a score, of identifiers that both lists have."""
    found = [
        abs(score - dict(y)[name])
        for x, y in zip(ours, theirs, strict=True)
        for name, score in x
        if name in dict(y)
    ]  # fmt: skip
    return max(found, default=0.0)
