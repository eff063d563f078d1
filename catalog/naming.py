"""How messages name items and strings: the first few, and how many more there are."""

from collections.abc import Sequence

import numpy as np

from .errors import CatalogError
from .texts import TextColumn

SHOWN = 5  # how many offenders of one kind a message names
LONGEST_ID = 1024  # bytes of an item's id; what is longer is no id, but a file that was read wrongly
LONGEST_SHOWN = 80  # characters of an id that a message shows


def lacking(missing: list[str], count: int, hint: str = "") -> CatalogError:
    """The error for strings of the catalog, `count` in all, that should be tokens of the tokenizer and are not."""
    return CatalogError(
        f"{len(missing)} of the catalog's {count} tokens are not in the tokenizer's vocabulary: "
        f"{some(missing)}. Add them to the tokenizer (and train their embeddings), or use the index file "
        f"that the model was trained with.{hint}"
    )


def some(offenders: Sequence[object]) -> str:
    """The first few offenders, and how many more there are."""
    more = f" and {len(offenders) - SHOWN} more" if len(offenders) > SHOWN else ""
    return ", ".join(map(repr, offenders[:SHOWN])) + more


def named(items: Sequence[str]) -> str:
    """Items as messages name them."""
    shown = [item if len(item) <= LONGEST_SHOWN else f"{item[:LONGEST_SHOWN]}..." for item in items[:SHOWN]]
    return f"items {some([*shown, *items[SHOWN:]])}"


def refuse_odd_ids(source: object, ids: TextColumn) -> None:
    """Raise `CatalogError` for ids that nobody would write."""
    lengths = ids.lengths
    if not lengths.all():
        raise CatalogError(f"{source}: item number {int(lengths.argmin()) + 1:,} has an empty id; expected some text.")
    if lengths.max(initial=0) > LONGEST_ID:
        long = np.flatnonzero(lengths > LONGEST_ID)
        raise CatalogError(
            f"{source}: {named([ids[item] for item in long.tolist()])} have ids of up to {int(lengths.max()):,} bytes; "
            f"expected at most {LONGEST_ID:,}. Is it the id that stands there? Give such items shorter ones."
        )
