"""A request as clients send it, checked field by field, and asked of a model."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, TypeVar

import msgspec

from ...catalog.checks import shown
from ...catalog.errors import HistoryError, OptionError
from ...runtime.encoding import check_k
from ...runtime.options import Verification
from ...runtime.search.filters import ItemFilter
from ..recommender import AsyncRecommender, Served
from ..settings import Verifying
from .refusals import Refused
from .rules import Rules

K = 20  # items of a list, where nobody says how many
SETTINGS = ("slack", "temperature", "seed", "scoring", "mode")  # of a verification, as its errors name them
AT = re.compile(r" - at `\$\.?(?P<field>[^`]*)`$")
NAMED = re.compile(r"(?:unknown|required) field `(?P<field>[^`]*)`")
S = TypeVar("S", bound=msgspec.Struct)
Id = Annotated[str, msgspec.Meta(max_length=1024)] | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Ids = Annotated[list[Id], msgspec.Meta(min_length=1)]


class Wishes(Verifying, frozen=True):
    """What a request may ask for beside its history; how its list is verified: by default as the server was started."""

    k: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None  # items of the list; default: 20
    allow: list[Id] | None = None  # recommend only these
    deny: list[Id] | None = None  # recommend none of these
    exclude_history: bool | None = None  # nor what the history holds
    deadline_ms: Annotated[float, msgspec.Meta(gt=0, le=86_400_000)] | None = None  # after which nobody wants it
    priority: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)] | None = None  # the largest is served first


class Asked(Wishes, frozen=True, kw_only=True):
    """One request: a line of a history file, and how it is to be served."""

    items: Ids  # oldest first
    user: Id | None = None  # whose history it is: where sampling, a user's draw depends on it
    stats: bool = False  # tell what the list cost


def decoded(body: bytes | msgspec.Raw, kind: type[S], prefix: str = "") -> S:
    """JSON as a struct. Raises `Refused` with the field; prefix: of its name."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _mistaken(str(error), prefix) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}.") from None


def converted(values: dict[str, object], kind: type[S], prefix: str = "") -> S:
    """As `decoded`, of what is decoded already."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise _mistaken(str(error), prefix) from None


def _mistaken(message: str, prefix: str) -> Refused:
    at, named = AT.search(message), NAMED.search(message)
    parts = [prefix, at["field"] if at else "", named["field"] if named else ""]
    field = ".".join(part for part in parts if part)[:200]
    return Refused(400, f"{AT.sub('', message)}.", field=field or None)


@contextmanager
def about(field: str | None) -> Iterator[None]:
    """Let errors of what is asked name the field that is at fault."""
    try:
        yield
    except HistoryError as error:
        raise Refused(400, str(error), field="items") from None
    except OptionError as error:
        raise Refused(400, str(error), field=field) from None


async def ask(
    recommender: AsyncRecommender, rules: Rules, wishes: Wishes, items: list[str | int],
    user: str | int | None = None,
) -> Served:  # fmt: skip
    """One list. Raises `Refused`, and what `AsyncRecommender.submit` does."""
    recommender = recommender.pinned()  # checked and served by what serves now
    limits, edition = rules.limits, recommender.edition
    k = K if wishes.k is None else wishes.k
    _check_history(items, rules, recommender)
    with about("k"):
        check_k(k, limits.k)
        check_k(k, edition.recommender.max_k)
    verification = verification_of(wishes, edition.recommender.verification)
    item_filter = ItemFilter(wishes.allow, wishes.deny or ()) if wishes.allow is not None or wishes.deny else None
    seconds = min(wishes.deadline_ms or limits.timeout_ms, limits.timeout_ms) / 1000

    submit = partial(
        recommender.submit, items, k=k, user=user, item_filter=item_filter,
        exclude_history=bool(wishes.exclude_history), verification=verification, timeout=seconds,
        priority=wishes.priority or 0,
    )  # fmt: skip
    async with asyncio.timeout(seconds):
        with about(None if verification is None else "mode"):
            # what is to be compiled may take a while
            quick = item_filter is None and verification is None
            future = submit() if quick else await asyncio.to_thread(submit)
        return await asyncio.wrap_future(future)


def _check_history(items: list[str | int], rules: Rules, recommender: AsyncRecommender) -> None:
    if len(items) > rules.limits.items:
        raise Refused(
            400, f"the history has {len(items)} items; this server takes {rules.limits.items}. Send the last ones.",
            field="items",
        )  # fmt: skip
    if rules.unknown_items == "reject":
        known = recommender.edition.recommender.catalog.position
        unknown = [item for item in items if str(item) not in known]
        if unknown:
            raise Refused(
                400, f"the catalog lacks {len(unknown)} of the {len(items)} items, e.g. {shown(unknown[0])}.",
                field="items",
            )  # fmt: skip


def verification_of(wishes: Wishes, own: Verification) -> Verification | None:
    """How this request is verified; None: as all that do not say. own: the model's, whose settings hold in its mode."""
    try:
        return wishes.over(own)
    except OptionError as error:
        field = next((name for name in SETTINGS if name in str(error)), "mode")
        raise Refused(400, str(error), field=field) from None
