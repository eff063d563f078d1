"""Groups of items: by category, as LASER/DARE (arXiv 2408.05676) has them; by the words of titles; or at random."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from ...catalog.errors import CatalogError
from ...catalog.records import read_json
from ...catalog.repeats import Fields, refuse_repeated
from .users import Grouping, Told, at_random, check_count, clustered, embedded

EXPECTED = 'expected such as {"0": {"title": "Desk lamp", "categories": ["Home", "Lighting"]}, ...}'
OTHER = "other"


class Described(msgspec.Struct):
    """An item of items.json; other keys are ignored."""

    title: str | None = None
    categories: list[str] | str | None = None  # from the root down; a string has commas between them

    @property
    def path(self) -> tuple[str, ...]:
        """Categories from the root down; () where it has none."""
        names = self.categories.split(",") if isinstance(self.categories, str) else self.categories or []
        return tuple(name.strip() for name in names if name.strip())


FIELDS = Fields(Described)


def read_items(path: Path) -> dict[str, Described]:
    """Item id to what items.json says of it. Raises `CatalogError` for a file that is none."""
    items, text = read_json(path, dict[str, Described], EXPECTED, CatalogError)
    refuse_repeated(path, text, FIELDS, CatalogError)
    if not items:
        raise CatalogError(f"{path} holds no items; {EXPECTED}.")
    return items


def group_by_category(items: Mapping[str, Described], level: int = 1, min_size: int = 20) -> Grouping:
    """Items by category at a `level` (0: the root), named by the path below the root, as "Skin Care > Face" at 2.

    Categories of fewer than `min_size` items, and items whose categories end above the level, are in "other". Items
    without any category are in no group. Raises `CatalogError` where no item has one.
    """
    names: dict[str, str] = {}
    for item, described in items.items():
        if path := described.path:
            names[item] = " > ".join(path[min(level, 1) : level + 1]) if level < len(path) else OTHER
    if not names:
        raise CatalogError(
            f"got {len(items)} items without categories; {EXPECTED}. To group by the words of their titles: "
            "--method title."
        )
    sizes = Counter(names.values())
    return Grouping({item: name if sizes[name] >= min_size else OTHER for item, name in names.items()})


def group_by_title(
    items: Mapping[str, Described],
    groups: int = 6,
    dimension: int = 32,
    seed: int = 0,
    *,
    progress: Told = lambda stage: None,
) -> Grouping:
    """Items by the words of their titles: TF-IDF, truncated SVD, k-means. Items without a title are in no group.

    Raises `CatalogError` where fewer items than groups have a title, or titles have no words in common.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

    titles = {item: described.title for item, described in sorted(items.items()) if described.title}
    check_count(len(titles), groups, CatalogError, "items with a title")
    try:
        matrix = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english").fit_transform(titles.values())
    except ValueError:  # its own advice is about parameters that are not ours
        raise CatalogError(
            f"no word is in two of the {len(titles)} titles; expected titles with words in common."
        ) from None
    progress(f"embedding {matrix.shape[0]} titles by {matrix.shape[1]} words")
    rows = embedded(matrix, dimension, seed)
    progress("clustering")
    return clustered(list(titles), rows, groups, seed, CatalogError, "items")


def group_at_random(items: Iterable[str], groups: int = 6, seed: int = 0) -> Grouping:
    """The control: a group follows from item and seed alone."""
    return Grouping(at_random(items, groups, seed, CatalogError, "items"))
