"""What a line of a history file becomes: a request, or a reject with its reason."""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from ..records import Reject


@dataclass(frozen=True)
class HistoryRequest:
    """One request: a user's items, oldest first."""

    user: str
    items: tuple[str, ...]
    line: int  # where it begins in its file, counted from 1 (Parquet: the row)
    source: str = ""  # the file's name
    k: int | None = None  # items it asks for, where the format can say so
    allow: frozenset[str] | None = None  # what it may be recommended; None: everything
    deny: frozenset[str] = frozenset()  # what it may not
    exclude_history: bool = False  # nor what its history holds
    labels: tuple[str, ...] = ()  # what came next, where a file of a dataset says so


@dataclass(frozen=True)
class EmptyHistory(Reject):
    """A request that has no history yet, but all else."""

    request: HistoryRequest | None = None


class HistoryEntry(msgspec.Struct):
    """A request as JSON; other keys are ignored."""

    user: str | int
    items: list[str | int]
    k: Annotated[int, msgspec.Meta(ge=1)] | None = None
    allow: list[str | int] | None = None
    deny: list[str | int] | None = None
    exclude_history: bool | None = None
    labels: list[str | int] | None = None


Outcome = HistoryRequest | Reject
NONE: frozenset[str] = frozenset()
EXPECTED = (
    'expected {"user": "u1", "items": ["11", ...]}, ids being strings or integers (and if wanted "k": 10, '
    '"allow": [...], "deny": [...], "exclude_history": true)'
)


def request_or_reject(user: Any, items: Any, line: int, raw: str, source: str, **asked: Any) -> Outcome:
    """A request, if `user` is an id and `items` a list of at least one id; ids are strings or integers.

    asked: "k", "allow", "deny", "exclude_history" and "labels", where the format has them.
    """
    try:
        entry = msgspec.convert({"user": user, "items": items, **asked}, HistoryEntry)
        str(user).encode("utf-8")
    except msgspec.ValidationError as error:
        return Reject(line, f"{error}; {EXPECTED}", raw, source)
    except UnicodeEncodeError:
        return Reject(line, f"the user {user!r} holds half a surrogate pair; expected text", raw, source)
    return accepted(entry, line, raw, source)


def accepted(entry: HistoryEntry, line: int, raw: str, source: str) -> Outcome:
    items = tuple(map(str, entry.items))
    allow = None if entry.allow is None else frozenset(map(str, entry.allow))
    deny = frozenset(map(str, entry.deny)) if entry.deny else NONE
    labels = tuple(map(str, entry.labels)) if entry.labels else ()
    request = HistoryRequest(
        str(entry.user), items, line, source, entry.k, allow, deny, bool(entry.exclude_history), labels
    )
    if items:
        return request
    reason = f"the history of user {entry.user} is empty; expected at least one item"
    return EmptyHistory(line, reason, raw, source, request=request)
