"""Items by their titles and ids: every word of a query, whatever its case."""

from bisect import bisect_right
from collections.abc import Iterator
from html import unescape
from itertools import accumulate
from threading import Lock
from typing import final
from weakref import WeakKeyDictionary

from ...catalog.items import Catalog
from ..editions import Edition


@final
class Titles:
    """A catalog's titles and ids as one text of a line each, which is searched from match to match."""

    def __init__(self, catalog: Catalog) -> None:
        self._position = catalog.position
        pairs = zip(catalog.titles, catalog.item_ids, strict=True)
        self._lines = [f"{_folded(unescape(title or ''))}\t{_folded(item)}" for title, item in pairs]
        self._text = "\n" + "\n".join(self._lines)
        self._starts = list(accumulate((len(line) + 1 for line in self._lines), initial=1))  # behind each line break

    def search(self, query: str, most: int) -> list[int]:
        """Up to `most` rows of the catalog: whose id it is, whose title begins so, holds it so, has all its words.

        Nothing asked: the first ones.
        """
        exact = self._position.get(query.strip())
        words = _folded(query).split()
        if not words:
            return list(range(min(most, len(self._lines))))
        found = dict.fromkeys([exact] if exact is not None else [])
        for row in self._matches(words):
            if len(found) >= most:
                break
            found[row] = None
        return list(found)[:most]

    def _matches(self, words: list[str]) -> Iterator[int]:
        phrase = " ".join(words)
        for needle in dict.fromkeys((f"\n{phrase}", phrase, max(words, key=len))):
            at = 0
            while (at := self._text.find(needle, at)) >= 0:
                row = bisect_right(self._starts, at + needle.startswith("\n")) - 1
                if all(word in self._lines[row] for word in words):
                    yield row
                at = self._starts[row + 1] - 1  # the line break in front of the next line


def _folded(text: str) -> str:
    """Without case, and in one line."""
    return " ".join(text.casefold().split())


@final
class TitlesOf:
    """The titles of editions, each read once, when it is first searched."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Edition, Titles] = WeakKeyDictionary()
        self._lock = Lock()

    def __call__(self, edition: Edition) -> Titles:
        with self._lock:
            if edition not in self._kept:
                self._kept[edition] = Titles(edition.recommender.catalog)
            return self._kept[edition]
