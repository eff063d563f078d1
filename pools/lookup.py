"""Where a request's last tokens occur in its sources: what is looked up, and which of the places are looked at."""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np

from ..catalog.errors import OptionError, PoolError
from ..catalog.files import Frozen
from .sources import BEGINNING, AnyTokens, Int64, Scanned, Source, joined

HEAVIEST = 10**6
BACKOFF = 3  # suffixes that are used with `Drafting.backoff`: the longest known and the next shorter ones
SHORTER = 64  # times as much counts what follows a longer suffix
UNIT = 2**12  # weights are whole numbers of 1 / UNIT: their sums are exact in whatever order


class Drafting(Frozen, frozen=True):
    """How branches are chosen; the first three defaults are LASER's. Raises `OptionError` for what is out of range."""

    draft_tokens: int = 64  # most branches of a request
    depth: int = 12  # of the deepest branch
    query: int = 2  # most tokens that are looked up; fewer where these are unknown
    prompt_weight: float = 4.0  # of an occurrence in the request's own text; 0: it is not looked at
    min_share: float = 0.0  # branches of less are left out
    occurrences: int = 128  # of a query, most that are looked at in all sources together
    backoff: bool = False  # fill up with what follows shorter suffixes than the longest known

    def __post_init__(self) -> None:
        for name in ("draft_tokens", "depth", "query", "occurrences"):
            if getattr(self, name) < 1:
                raise OptionError(f"got {name.replace('_', ' ')} {getattr(self, name)}; expected at least 1.")
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
    request: int, context: AnyTokens, sources: Sequence[Source], drafting: Drafting, *, fresh: bool
) -> list[Places]:
    """The occurrences of a request's query in its sources, and in its own text; see `propose`."""
    _check(sources, drafting)
    text = joined([context], drafting.reach)[1:]  # which begins with no separator: a prompt is no earlier text
    known = [*sources, Scanned(text, drafting.reach, drafting.prompt_weight)]
    places: list[Places] = []
    scales = [(SHORTER**i * UNIT, ) for i in range(BACKOFF if drafting.backoff else 1)]
    for query in _queries(context, drafting.query, fresh):
        pass
    return places
