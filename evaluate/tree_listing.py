"""The items of a recommendation as a picture lists them: lines of text that tell each from the others."""

import unicodedata
from collections.abc import Mapping
from itertools import takewhile
from typing import Final, NamedTuple

from .explain import Explanation, counted, plain_text

TITLE = 400  # pixels of a line of a title
LINES = 2  # of a title
PITCH, GAP = 14.0, 3.0  # pixels from line to line, and between items
MOST = 18  # letters of an item's id
NARROW: Final = frozenset(" ijlftrI.,:;'|!()[]-/")


class Listed(NamedTuple):
    """One item."""

    rank: int
    ident: str
    score: float
    lines: tuple[str, ...]  # of its title; none: it has none

    @property
    def height(self) -> float:
        """Pixels."""
        return PITCH * max(len(self.lines), 1) + GAP


class Leaf(NamedTuple):
    """All that stands beside one leaf, from top to bottom."""

    items: tuple[Listed, ...]
    note: str  # on items that share its identifier; may be empty

    @property
    def height(self) -> float:
        """Pixels."""
        return sum(item.height for item in self.items) + (PITCH if self.note else 0)


def listing(explanation: Explanation) -> dict[int, Leaf]:
    """What stands beside every leaf of the answer."""
    titles = told_apart([plain_text(item.title) for item in explanation.items])
    by_leaf: dict[int, list[Listed]] = {}
    sharing = dict(zip(explanation.leaves, explanation.sharing, strict=True))
    for rank, (leaf, item) in enumerate(zip(explanation.leaves, explanation.items, strict=True), 1):
        listed = Listed(rank, _middle_cut(item.item), item.score, titles[rank - 1])
        by_leaf.setdefault(leaf, []).append(listed)
    return {leaf: Leaf(tuple(items), _note(len(items), sharing[leaf])) for leaf, items in by_leaf.items()}


def titled(leaves: Mapping[int, Leaf]) -> bool:
    """Whether any item has a title to show."""
    return any(item.lines for leaf in leaves.values() for item in leaf.items)


def _note(here: int, sharing: int) -> str:
    more = f"{counted(sharing - here, 'more item')} of the catalog {'share' if sharing - here > 1 else 'shares'} it"
    if here > 1:
        return f"these {here} items have one identifier" + (f"; {more}" if sharing > here else "")
    return f"its identifier: {more}" if sharing > here else ""


def told_apart(titles: list[str]) -> list[tuple[str, ...]]:
    """Every title as at most `LINES` lines. Of those that would be cut to the same the last line is what differs."""
    folded = [_fold(title) for title in titles]
    cut = [_cut(lines) for lines in folded]
    shown = list(cut)
    for i, title in enumerate(titles):
        rivals = [other for other, lines in zip(titles, cut, strict=True) if lines == cut[i] and other != title]
        if rivals:
            same = max(_shared(title, rival) for rival in rivals)
            shown[i] = (*cut[i][: LINES - 1], _from(title, title.rfind(" ", 0, same) + 1))
    return shown


def _from(title: str, start: int) -> str:
    """A line with what stands at `start`, and as much before it as there is room for."""
    while start > 0 and pixels("…" + title[title.rfind(" ", 0, start - 1) + 1 :]) <= TITLE:
        start = title.rfind(" ", 0, start - 1) + 1
    return _cut_line("…" + title[start:])


def _shared(one: str, other: str) -> int:
    """Letters that both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _cut(lines: list[str]) -> tuple[str, ...]:
    if len(lines) <= LINES:
        return tuple(lines)
    return (*lines[: LINES - 1], _cut_line(f"{lines[LINES - 1]} {lines[LINES]}"))


def _cut_line(text: str) -> str:
    if pixels(text) <= TITLE:
        return text
    while pixels(text) > TITLE - pixels("…"):
        text = text[:-1]
    return text.rstrip() + "…"


def _fold(text: str) -> list[str]:
    """A text as lines that fit; what is longer than a line without a space is broken."""
    lines: list[str] = []
    for word in text.split():
        if lines and pixels(f"{lines[-1]} {word}") <= TITLE:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for letter in word:
            if pixels(lines[-1] + letter) > TITLE:
                lines.append("")
            lines[-1] += letter
    return lines


def pixels(text: str) -> float:
    """About what a text takes in a sans-serif font of 11 pixels."""
    return sum(map(_letter, text))


def _letter(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 11.0
    if unicodedata.combining(letter):
        return 0.0
    if letter in NARROW:
        return 3.4
    return 7.8 if letter.isupper() or letter in "mwMW&%@" else 6.0


def _middle_cut(ident: str) -> str:
    half = MOST // 2 - 1
    return ident if len(ident) <= MOST else f"{ident[:half]}…{ident[-half:]}"
