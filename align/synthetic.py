"""A synthetic shop with something to learn: readable items, and users with latent interests that drift.

An item is a kind, a style, a size and a colour; these are its four identifier codes, so that an
identifier's prefix carries meaning, as the clusters of clusters of a real semantic id do. A user has
a few kinds of interest and a taste in styles. The next item either follows from the last one (its
kind's accessory, in the same style) or comes from an interest; interests drift.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..catalog.checks import Checked
from ..catalog.errors import SpecBeamError
from ..catalog.files import whole_directory
from .synthetic_words import COLOURS, KINDS, KINDS_PER_DEPARTMENT, SIZES, STYLES, STYLES_PER_FAMILY

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

FAMILIES = len(STYLES) // STYLES_PER_FAMILY
MOST_ITEMS = 50_000  # far below the number of codes, so that drawing finds enough different ones
SUCCESSORS = 3  # items that may follow an item by themselves


class ShopSize(Checked, frozen=True, kw_only=True):
    """How much to generate."""

    items: int = 3000
    twins: int = 12  # items that share their identifier with another item
    train_users: int = 8000
    held_out_users: int = 500  # users of the validation and of the test split, each
    longest: int = 24  # items of a history at most; the shortest has 3
    follow: float = 0.5  # chance that the next item follows from the last one
    drift: float = 0.08  # chance a step that one of a user's interests moves on
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Shop:
    """The catalog and what draws from it; I items."""

    codes: Int64  # [I, 4]: kind, style, size, colour
    titles: list[str]
    successors: Int64  # [I, SUCCESSORS]
    popularity: Float64  # [I], unnormalised

    @property
    def identifiers(self) -> list[list[str]]:
        """Identifier tokens of every item, e.g. `["<a_4>", "<b_31>", "<c_0>", "<d_7>"]`."""
        return [[f"<{level}_{code}>" for level, code in zip("abcd", row, strict=True)] for row in self.codes.tolist()]


class GroupSampler:
    """Draws items of a wanted kind and style family in proportion to their popularity."""

    def __init__(self, codes: Int64, popularity: Float64) -> None:
        group = codes[:, 0] * FAMILIES + codes[:, 1] // STYLES_PER_FAMILY
        self._order = np.argsort(group, kind="stable")
        self._cumulative = np.concatenate(([0.0], np.cumsum(popularity[self._order])))
        edges = np.searchsorted(group[self._order], np.arange(len(KINDS) * FAMILIES + 1))
        self._start = self._cumulative[edges[:-1]]
        self._mass = (self._cumulative[edges[1:]] - self._start).reshape(len(KINDS), FAMILIES)

    def draw(self, rng: np.random.Generator, kind: Int64, taste: Float64) -> Int64:
        """One item for every row: kind [n], taste over style families [n, FAMILIES]. Returns items [n]."""
        weight = np.where(self._mass[kind] > 0, taste + 1e-6, 0.0)
        cumulative = np.cumsum(weight, axis=1)
        family = (cumulative < rng.random((len(kind), 1)) * cumulative[:, -1:]).sum(axis=1)
        point = self._start[kind * FAMILIES + family] + rng.random(len(kind)) * self._mass[kind, family]
        position = np.searchsorted(self._cumulative, point, side="right") - 1
        drawn: Int64 = self._order[np.minimum(position, len(self._order) - 1)]
        return drawn


def draw_shop(size: ShopSize) -> Shop:
    """The catalog of `size`, the same for the same seed."""
    rng = np.random.default_rng([size.seed, 0])
    codes = _draw_codes(rng, size)
    titles = [f"{STYLES[b]} {KINDS[a]}, {SIZES[c]}, {COLOURS[d]}" for a, b, c, d in codes.tolist()]
    seen: set[str] = set()
    for i, title in enumerate(titles):  # items that share an identifier are still different items
        titles[i] = f"{title}, new edition" if title in seen else title
        seen.add(title)
    popularity = rng.pareto(1.5, size.items) + 0.1
    sampler = GroupSampler(codes, popularity)
    family = np.eye(FAMILIES)[codes[:, 1] // STYLES_PER_FAMILY]
    follows = [sampler.draw(rng, _accessory(codes[:, 0]), family) for _ in range(SUCCESSORS)]
    return Shop(codes, titles, np.stack(follows, axis=1), popularity)


def draw_histories(shop: Shop, size: ShopSize, users: int, stream: int) -> tuple[Int64, Int64]:
    """Histories of `users` users: items [users, longest + 1] in time order and lengths [users].

    A row holds `length` items and then at least one more, the answer to "what comes next?".
    `stream` separates the splits: other streams are other users.
    """
    rng = np.random.default_rng([size.seed, 1, stream])
    sampler = GroupSampler(shop.codes, shop.popularity)
    lengths = np.minimum(3 + rng.geometric(0.12, users), size.longest)
    department = rng.integers(len(KINDS) // KINDS_PER_DEPARTMENT, size=(users, 3))
    department[:, 1] = department[:, 0]  # two interests of a user are related
    interests = department * KINDS_PER_DEPARTMENT + rng.integers(KINDS_PER_DEPARTMENT, size=(users, 3))
    taste = rng.dirichlet(np.full(FAMILIES, 0.25), users)
    everyone = np.arange(users)
    items = np.empty((users, size.longest + 1), np.int64)
    items[:, 0] = sampler.draw(rng, interests[:, 0], taste)
    for step in range(1, size.longest + 1):
        interest = rng.choice(3, users, p=(0.6, 0.25, 0.15))
        drifts = rng.random(users) < size.drift
        interests[everyone, interest] = np.where(
            drifts, _accessory(interests[everyone, interest]), interests[everyone, interest]
        )
        fresh = sampler.draw(rng, interests[everyone, interest], taste)
        successor = shop.successors[items[:, step - 1], rng.choice(SUCCESSORS, users, p=(0.6, 0.3, 0.1))]
        items[:, step] = np.where(rng.random(users) < size.follow, successor, fresh)
    return items, lengths


def write_shop(output: Path, size: ShopSize | None = None, *, replace: bool = False) -> None:
    """Write a shop's files into the new directory `output`.

    A dataset (`catalog.dataset`): `index.json` and `items.json` (the catalog), `train.jsonl` (whole
    histories), and for other users `valid.jsonl` and `test.jsonl` (histories, and as label the one item
    that came next). Raises `SpecBeamError` where `output` exists and `replace` is false.
    """
    size = size or ShopSize()
    shop = draw_shop(size)
    with whole_directory(output, kind="index.json", replace=replace) as part:
        index = {str(i): tokens for i, tokens in enumerate(shop.identifiers)}
        titles = {str(i): {"title": title} for i, title in enumerate(shop.titles)}
        (part / "index.json").write_text(json.dumps(index), encoding="utf-8")
        (part / "items.json").write_text(json.dumps(titles), encoding="utf-8")
        splits = {"train": size.train_users, "valid": size.held_out_users, "test": size.held_out_users}
        for stream, (split, users) in enumerate(splits.items()):
            items, lengths = draw_histories(shop, size, users, stream)
            rows = [row[:length] for row, length in zip(items.tolist(), lengths.tolist(), strict=True)]
            answers = items[np.arange(users), lengths].tolist()
            _write_lines(part / f"{split}.jsonl", split, rows, None if split == "train" else answers)


def _draw_codes(rng: np.random.Generator, size: ShopSize) -> Int64:
    """Codes [I, 4], distinct but for the twins; kinds and styles follow Zipf's law, as shelves do."""
    levels = (len(KINDS), len(STYLES), len(SIZES), len(COLOURS))
    if not 0 <= size.twins < size.items <= MOST_ITEMS:
        raise SpecBeamError(f"got {size.items} items, {size.twins} of them twins; expected at most {MOST_ITEMS} items.")
    draws = 4 * size.items
    columns = [
        rng.choice(rng.permutation(count), draws, p=_zipf(count, exponent))
        for count, exponent in zip(levels, (0.4, 0.6, 0.8, 0.4), strict=True)
    ]
    _, first = np.unique(np.ravel_multi_index(tuple(columns), levels), return_index=True)
    codes = np.stack(columns, axis=1)[np.sort(first)[: size.items - size.twins]]
    twins = codes[rng.choice(len(codes), size.items - len(codes), replace=False)]
    return rng.permutation(np.concatenate((codes, twins)))


def _zipf(count: int, exponent: float) -> Float64:
    weight: Float64 = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    weight /= weight.sum()
    return weight


def _accessory(kind: Int64) -> Int64:
    """The kind that is bought next: the neighbour in the same department."""
    department, place = np.divmod(kind, KINDS_PER_DEPARTMENT)
    neighbour: Int64 = department * KINDS_PER_DEPARTMENT + (place + 1) % KINDS_PER_DEPARTMENT
    return neighbour


def _write_lines(path: Path, split: str, rows: list[list[int]], answers: list[int] | None) -> None:
    with path.open("w", encoding="utf-8") as file:
        for user, row in enumerate(rows):
            line: dict[str, object] = {"user": f"{split}-{user}", "items": [str(item) for item in row]}
            if answers is not None:
                line["labels"] = [str(answers[user])]
            file.write(json.dumps(line) + "\n")
