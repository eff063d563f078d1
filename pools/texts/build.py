"""Building a pool of texts: sorting all their suffixes once, and sharing them out to the groups."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from itertools import accumulate
from pathlib import Path

import numpy as np

from ...catalog import checks
from ...catalog.errors import PoolError
from ...catalog.files import whole_directory
from ...catalog.items import some
from ..files import POOL_FILE, Array, write_arrays, write_facts
from ..members import Members
from .pool import GroupFacts, TextPoolFacts
from .read import Text
from .sources import Int32, Int64, Tokens, joined
from .suffixes import MOST_TOKENS, directory, sort_suffixes

Progress = Callable[[str, int, int | None], None]
STAGE, STEPS = "sorting tokens", 3


def build_text_pool(
    texts: Iterable[Text], output: Path, *, tokenizer_sha256: str, reach: int,
    groups: Mapping[str, str] | None = None, overwrite: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> TextPoolFacts:  # fmt: skip
    """Write a pool of earlier texts to the folder `output`, whole or not at all.

    reach: tokens of the longest window (`Drafting.reach`). groups: id to group name; a text whose id is in none is in
    the pool of all texts alone. Raises `PoolError` where there is no text, or none of a group, or too many.
    """
    output, overwrite = checks.path(output, "output"), checks.flag(overwrite, "overwrite")
    tokenizer_sha256, reach = checks.text(tokenizer_sha256, "tokenizer_sha256"), checks.whole_number(reach, "reach")
    groups = checks.instance({} if groups is None else groups, "groups", Mapping, "a mapping of ids to group names")
    with whole_directory(output, kind=POOL_FILE, replace=overwrite) as folder:
        texts = [checks.instance(text, "a text", Text, "what encode(texts) yields") for text in texts]
        texts = [text for text in texts if len(text.tokens)]
        names = sorted(set(groups.values()))
        number = {name: i for i, name in enumerate(names)}
        group = np.array([number.get(groups.get(text.id, ""), len(names)) for text in texts], np.int64)
        counts = np.bincount(group, minlength=len(names) + 1)
        _check(names, counts)
        own = [texts[i].tokens for i in group.argsort(kind="stable")]
        del texts
        arrays, facts = _sorted(joined(own, reach), _ends(own, counts), counts, reach, progress)
        members = Members.of(groups, names)
        arrays |= {"member_keys": members.keys, "member_groups": members.groups}
        written = TextPoolFacts(
            arrays=write_arrays(folder, arrays), tokenizer_sha256=tokenizer_sha256, reach=reach,
            all=facts[0], groups=dict(zip(names, facts[1:], strict=True)),
        )  # fmt: skip
        write_facts(folder, written)
        progress(STAGE, STEPS, STEPS)
    return written


def _check(names: Sequence[str], counts: Int64) -> None:
    if not counts.sum():
        raise PoolError("no text to build a pool of. Expected at least one.")
    empty = [name for name, count in zip(names, counts, strict=False) if not count]
    if empty:
        raise PoolError(
            f"an empty group: no text belongs to {some(empty)}. Expected texts of every group: give texts whose ids "
            "are in it, or take it out of the file of groups."
        )


def _ends(texts: Sequence[Sized], counts: Int64) -> Int64:
    """Behind each group's tokens and separators, and last behind those in no group."""
    return np.cumsum([len(text) + 1 for text in texts])[np.cumsum(counts) - 1]


def _sorted(
    tokens: Tokens, ends: Int64, counts: Int64, reach: int, progress: Progress
) -> tuple[dict[str, Array], list[GroupFacts]]:
    """A pool's arrays of texts, and what they hold: of all, then of each group. ends, counts: of each, and of no group.

    Raises `PoolError` for more tokens than a pool holds.
    """
    if len(tokens) > MOST_TOKENS:
        raise PoolError(f"{len(tokens)} tokens are too many: a pool holds {MOST_TOKENS}. Build several pools.")
    progress(STAGE, 0, STEPS)
    order = sort_suffixes(tokens, reach)
    progress(STAGE, 1, STEPS)
    orders = [order, *_shared_out(order, ends)]
    pairs, starts = zip(*(directory(tokens, part) for part in orders), strict=True)
    progress(STAGE, 2, STEPS)
    offsets = list(accumulate(map(len, orders), initial=0))
    shifted = [part + np.int32(offset) for part, offset in zip(starts, offsets, strict=False)]
    facts = [
        GroupFacts(texts=texts, tokens=len(part) - texts, pairs=len(own))
        for texts, part, own in zip((int(counts.sum()), *counts.tolist()), orders, pairs, strict=False)
    ]
    arrays = {
        "tokens": tokens,
        "order": np.concatenate(orders),
        "pairs": np.concatenate(pairs),
        "starts": np.concatenate((*shifted, [offsets[-1]]), dtype=np.int32),
    }
    return arrays, facts


def _shared_out(order: Int32, ends: Int64) -> list[Int32]:
    """Each group's places, sorted as `order` [W] sorts all; `ends` as of `_ends`."""
    if len(ends) == 1:
        return []
    group = ends.searchsorted(order, side="right").astype(np.min_scalar_type(len(ends)))
    return np.split(order[group.argsort(kind="stable")], ends[:-1])[:-1]
