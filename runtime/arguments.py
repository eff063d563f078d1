"""What callers of the runtime give, checked where it enters."""

from collections.abc import Iterable

import numpy as np

from ..catalog import checks
from ..catalog.errors import OptionError
from ..catalog.trie import ItemTrie
from .options import Batching, Drafting, EngineChoice, Verification
from .types import DrafterKind, Mode, Request


def checked_verification(given: Verification | Mode | None) -> Verification:
    """How to verify; a mode alone: with its own defaults; None: strictly."""
    if given is None or isinstance(given, str):
        return Verification() if given is None else Verification(given)
    return checks.instance(given, "verification", Verification, "such as Verification('sampled')")


def checked_engine(given: EngineChoice | str | None) -> EngineChoice:
    """What runs it; by its name alone, or None: the bundle's default engine."""
    if given is None or isinstance(given, str):
        return EngineChoice(given)
    return checks.instance(given, "engine", EngineChoice, "a name, or such as EngineChoice(threads=4)")


def checked_drafting(given: Drafting | DrafterKind | None) -> Drafting:
    """What drafts, and how much; a drafter alone: as much as pays; None: by what there is."""
    if given is None or isinstance(given, str):
        return Drafting(given)
    return checks.instance(given, "drafting", Drafting, "such as Drafting(shape=DraftShape(40, 3)), or 'none'")


def checked_batching(given: Batching | int | None) -> Batching:
    """What a batch may be; a number: so many requests."""
    if given is None or isinstance(given, Batching):
        return Batching() if given is None else given
    return Batching(given)


def listed_histories(
    histories: Iterable[Iterable[str | int]], users: Iterable[str | int | None] | None
) -> tuple[list[list[str]], list[str | int | None]]:
    """All histories as lists of ids, and whose each one is. Raises `OptionError` for one in place of several."""
    each = checks.listed(histories, "histories", "histories")
    if each and all(isinstance(one, str | int | np.integer) for one in each):
        example = checks.shown(each[:2])
        raise OptionError(
            f"histories is {checks.shown(each)}, expected a list of histories, each a list of item ids: such as "
            f"[{example}] for one user."
        )
    names = [None] * len(each) if users is None else checks.listed(users, "users", "users")
    if len(names) != len(each):
        raise OptionError(f"got {len(names)} users for {len(each)} histories; expected as many.")
    return [checks.history(one, f"history {number} (from 0)") for number, one in enumerate(each)], names


def listed_requests(requests: Iterable[Request], trie: ItemTrie) -> list[Request]:
    """All requests, which must have been encoded for this trie."""
    each = checks.listed(requests, "requests", "requests")
    for request in each:
        checks.instance(request, "a request", Request, "what encode(history) returns")
    others = {id(request.trie): request.trie for request in each if request.trie is not trie}
    if not all(_same(other, trie) for other in others.values()):
        raise OptionError("a request was encoded by the recommender of another bundle; expected one of this one's.")
    return each


def _same(a: ItemTrie, b: ItemTrie) -> bool:
    """Whether two tries, each opened by itself, are of one catalog."""
    return all(
        np.array_equal(x, y) for x, y in ((a.vocabulary, b.vocabulary), (a.column, b.column), (a.parent, b.parent))
    )
