"""A stored race beside a fresh one: which ratios moved."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from ...catalog.errors import OptionError
from ...runtime.metrics import Estimate
from .figures import SCHEMA, Race


class Moved(NamedTuple):
    """A ratio whose interval has nothing in common with the stored one's."""

    name: str
    k: int
    batch: int
    base: str
    then: Estimate
    now: Estimate


class Check(NamedTuple):
    """What became of the stored ratios."""

    ratios: int  # that were measured again
    moved: tuple[Moved, ...]
    missing: tuple[str, ...]  # what was measured then and is not now


def read_race(path: Path) -> Race:
    """A stored race; raises `OptionError` for what is none."""
    try:
        race = msgspec.json.decode(path.read_bytes(), type=Race)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OptionError(
            f"{path} is no result to check against: {reason}. Give a file that specbeam bench --output wrote."
        ) from None
    if race.schema != SCHEMA:
        raise OptionError(
            f"{path} has the schema {race.schema}, expected {SCHEMA}. Measure it again with specbeam bench --output."
        )
    return race


def check_again(stored: Race, fresh: Race) -> Check:
    """Every stored ratio against the same of a fresh race; an interval that overlaps the stored one is no news.

    Raises `OptionError` where they have no ratio in common.
    """
    now = {(lane.name, lane.k, lane.batch, base): ratio for lane in fresh.lanes for base, ratio in lane.speedup.items()}
    moved, missing, ratios = list[Moved](), list[str](), 0
    for lane in stored.lanes:
        for base, then in lane.speedup.items():
            again = now.get((lane.name, lane.k, lane.batch, base))
            if again is None:
                missing.append(f"{lane.name}, K {lane.k}, batch {lane.batch}, over {base}")
                continue
            ratios += 1
            if again.low > then.high or again.high < then.low:
                moved.append(Moved(lane.name, lane.k, lane.batch, base, then, again))
    if not ratios:
        raise OptionError("the stored result and the fresh one have no ratio in common: nothing can be compared.")
    return Check(ratios, tuple(moved), tuple(missing))
