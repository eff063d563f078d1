"""A stored race beside a fresh one: which ratios moved."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from ...catalog.errors import OptionError
from ...runtime.metrics import FEWEST, Estimate
from .figures import SCHEMA, Race

PASSING = ("load", "bundle")  # how busy the machine was, and where the bundle lies


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
    few: int  # of these, how many say nothing: too few turns, then or now
    moved: tuple[Moved, ...]
    differing: tuple[str, ...]  # what else is not as it was, so that a ratio may have moved by it
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

    Of fewer than `FEWEST` turns there is no interval, and nothing is said. Raises `OptionError` where they have no
    ratio in common.
    """
    now = {(lane.name, lane.k, lane.batch): lane for lane in fresh.lanes}
    moved, missing, ratios, few = list[Moved](), list[str](), 0, 0
    for lane in stored.lanes:
        fresh_lane = now.get((lane.name, lane.k, lane.batch))
        for base, then in lane.speedup.items():
            again = None if fresh_lane is None else fresh_lane.speedup.get(base)
            if fresh_lane is None or again is None:
                missing.append(f"{lane.name}, K {lane.k}, batch {lane.batch}, over {base}")
                continue
            ratios += 1
            if min(lane.turns, fresh_lane.turns) < FEWEST:
                few += 1
            elif again.low > then.high or again.high < then.low:
                moved.append(Moved(lane.name, lane.k, lane.batch, base, then, again))
    if not ratios:
        raise OptionError("the stored result and the fresh one have no ratio in common: nothing can be compared.")
    return Check(ratios, few, tuple(moved), tuple(_differing(stored, fresh)), tuple(missing))


def _differing(stored: Race, fresh: Race) -> Iterator[str]:
    """What was measured and where, as it is now and is not as it was."""
    for one, other in ((stored.setup, fresh.setup), (stored.sources, fresh.sources)):
        for name in one.__struct_fields__:
            then, now = getattr(one, name), getattr(other, name)
            if then != now and name not in PASSING:
                yield f"{name.replace('_', ' ')}: {then} then, {now} now"
    if stored.requests != fresh.requests:
        yield f"requests: {stored.requests} then, {fresh.requests} now"
