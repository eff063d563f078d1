"""Pools of earlier texts on disk: all of them in one suffix array, and each group's in one of its own."""

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ...catalog import checks
from ...catalog.bounds import Positive
from ...catalog.errors import PoolError
from ...catalog.files import Frozen
from ...catalog.items import some
from ..files import Array, PoolFacts, build_command, check_types, no_pool, open_arrays, read_facts
from ..members import Members
from .check import check_groups, highest_token
from .sources import Source
from .suffixes import Sorted

SOURCES = "TEXTS.jsonl --tokenizer BUNDLE"  # in `build-pool`
TYPES = {  # of every array of a pool
    "tokens": "<u4", "order": "<i4", "pairs": "<u8", "starts": "<i4", "member_keys": "<u8", "member_groups": "<i4",
}  # fmt: skip


Reach = Annotated[int, msgspec.Meta(ge=1, le=2**16)]  # tokens


class GroupFacts(Frozen, frozen=True):
    """The texts of one group, or all."""

    texts: Positive
    tokens: Positive  # without separators
    pairs: Positive  # different ones of two tokens in a row


class TextPoolFacts(PoolFacts, frozen=True, kw_only=True):
    """pool.json of a pool of texts."""

    kind: Literal["text"] = "text"
    tokenizer_sha256: str  # see `tokenizer.fingerprint`
    reach: Reach  # the longest window: the query and what may be drafted behind it
    all: GroupFacts
    groups: dict[str, GroupFacts]


class TextPool:
    """An opened pool. Immutable, memory-mapped, and shared by threads and processes.

    Its arrays (W = tokens and one separator a text, D different pairs): tokens [W + reach], the texts of one group
    side by side, in no group the last; order [W, or 2 W where there are groups], all places sorted, then each
    group's; pairs [D] and starts [D + 1] of all, then of each group (`suffixes.directory`); member_keys and
    member_groups (`Members`).
    """

    def __init__(self, path: Path, facts: TextPoolFacts, arrays: Mapping[str, Array], highest: int) -> None:
        """highest: the largest token; see `open`."""
        self.path, self.facts, self.highest = path, facts, highest
        self._members = Members(arrays["member_keys"], arrays["member_groups"])
        tokens, order, pairs, starts = (arrays[name] for name in ("tokens", "order", "pairs", "starts"))
        ends = list(accumulate((part.pairs for part in (facts.all, *facts.groups.values())), initial=0))
        self._sources = {
            name: Sorted(tokens, order, pairs[start:end], starts[start : end + 1], facts.reach)
            for name, start, end in zip((None, *facts.groups), ends, ends[1:], strict=False)
        }

    @classmethod
    def open(cls, path: str | Path) -> "TextPool":
        """Open a pool and check every byte of it (0.1 s for 100 MB). Raises `PoolError`."""
        path = checks.path(path, "pool")
        again = build_command(path, SOURCES)
        facts = read_facts(path, "text", TextPoolFacts, again)
        check_types(path, facts.arrays, TYPES, again)
        arrays = open_arrays(path, facts.arrays, again)
        tokens, order, pairs, starts = (arrays[name] for name in ("tokens", "order", "pairs", "starts"))
        sizes = [(part.texts, part.tokens, part.pairs) for part in (facts.all, *facts.groups.values())]
        fault = check_groups(tokens, order, pairs, starts, sizes, facts.reach)
        if not Members(arrays["member_keys"], arrays["member_groups"]).sound(len(facts.groups)):
            fault = "its members are not sorted, or in no group"
        if fault:
            raise no_pool(path, "texts", fault, again)
        return cls(path, facts, arrays, highest_token(tokens))

    @property
    def tokenizer_sha256(self) -> str:
        """What the texts' tokenizer must have as its fingerprint."""
        return self.facts.tokenizer_sha256

    @property
    def checksum(self) -> str:
        """Of the pool's whole content."""
        return self.facts.checksum

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups' names."""
        return tuple(self.facts.groups)

    @property
    def texts(self) -> int:
        """How many texts there are."""
        return self.facts.all.texts

    @property
    def tokens(self) -> int:
        """How many tokens these have."""
        return self.facts.all.tokens

    def group_of(self, id: str) -> str | None:
        """The group of a user or an item, after the file the pool was built with; None: in no group."""
        number = self._members.group(id)
        return None if number is None else self.groups[number]

    def source(self, group: str | None) -> Source:
        """The texts of a group; None: all texts. Raises `PoolError` for a group that the pool does not have."""
        if group not in self._sources:
            raise PoolError(f"{self.path} has no group {group!r}; it has: {some(self.groups) or 'no groups'}.")
        return self._sources[group]
