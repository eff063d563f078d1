"""Where a request's last tokens occur in its sources: what is looked up, and which of the places are looked at."""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...catalog import checks
from ...catalog.checks import Checked
from ...catalog.errors import OptionError, PoolError
from .sources import BEGINNING, AnyTokens, Int64, Scanned, Source, joined

HEAVIEST = 10**6
MOST = {"draft_tokens": 4096, "depth": 256, "query": 32, "occurrences": 10**6}
SUFFIXES = 3  # that are used with `TextDrafting.backoff`: the longest known and the next shorter ones
SHORTER, FEWER = 64, 4  # of each shorter one, a place counts so much less, and so many fewer are looked at
LEAST = 8  # places that are looked at in any source
UNIT = 2**12  # weights are whole numbers of 1 / UNIT: their sums are exact in whatever order


class TextDrafting(Checked, frozen=True):
    """How branches are chosen (LASER looks up 2 tokens). Raises `OptionError` for what is out of range."""

    draft_tokens: int = 64  # most branches of a request
    depth: int = 12  # of the deepest branch
    query: int = 4  # most tokens that are looked up; fewer where these are unknown
    prompt_weight: float = 4.0  # of an occurrence in the request's own text; 0: it is not looked at
    min_share: float = 0.0  # branches of less are left out
    occurrences: int = 128  # of a query, most that are looked at in all sources together
    backoff: bool = False  # fill up with what follows shorter suffixes than the longest known

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.within(self, 1, **MOST)
        if not 0 <= self.prompt_weight <= HEAVIEST:
            raise OptionError(f"got a prompt weight of {self.prompt_weight:g}; expected 0 to {HEAVIEST}.")
        if not 0 <= self.min_share <= 1:
            raise OptionError(f"got a least share of {self.min_share:g}; expected 0 to 1.")

    @property
    def reach(self) -> int:
        """Tokens of a window: the query and what may be drafted behind it."""
        return self.query + self.depth


class Places(NamedTuple):
    """Places in one source that a request drafts from."""

    request: int
    source: Source
    at: Int64  # [m] behind the query, in the source's tokens
    weight: int  # of each, in units


def look_up(
    request: int, context: AnyTokens, sources: Sequence[Source], drafting: TextDrafting, *, fresh: bool
) -> list[Places]:
    """The occurrences of a request's query in its sources, and in its own text; see `propose`."""
    for source in sources:
        if source.reach < drafting.reach:
            raise PoolError(
                f"The pool's windows have {source.reach} tokens; a query of {drafting.query} and a depth of "
                f"{drafting.depth} need {drafting.reach}. Build it with a larger --depth, or draft less deep."
            )
    own = joined([context], drafting.reach)[1:]  # it begins with no separator: a prompt is no earlier text
    known = [*sources, Scanned(own, drafting.reach, drafting.prompt_weight)]
    places: list[Places] = []
    most, scale = drafting.occurrences, UNIT * SHORTER ** (SUFFIXES - 1 if drafting.backoff else 0)
    for query in _queries(context, drafting.query, fresh):
        found = [(source, at) for source in known if source.weight and len(at := source.find(query))]
        if found:
            places += _selected(request, found, len(query), most, scale)
            if scale == UNIT:
                break
            most, scale = ceil(most / FEWER), scale // SHORTER
    return places


def _queries(context: AnyTokens, longest: int, fresh: bool) -> Iterator[Sequence[int]]:
    if fresh:
        yield BEGINNING
    last = [int(token) for token in context[-longest:]]
    for start in range(len(last)):
        yield last[start:]


def _selected(
    request: int, found: Sequence[tuple[Source, NDArray[np.integer[Any]]]], length: int, most: int, scale: int
) -> Iterator[Places]:
    """Of all places where a query of `length` tokens begins some `most`, evenly spread, in the sources' proportions."""
    enough = sum(len(at) for _, at in found) <= most
    mass = sum(source.weight * len(at) for source, at in found)
    for source, at in found:
        count = len(at)
        share = count if enough else min(count, max(LEAST, ceil(most * source.weight * count / mass)))
        if share < count:
            at = at[(np.arange(share) * count + count // 2) // share]
        yield Places(request, source, at.astype(np.int64) + length, round(source.weight * scale * count / share))
