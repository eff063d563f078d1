"""The search over titles and ids, beside one that looks at every item."""

from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from specbeam.catalog.items import Catalog
from specbeam.serve.http.titles import Titles

LETTERS = st.text("abAB ßéÉ&;\n\t\u2028", max_size=8)
WORDS = st.lists(st.text("abAB", min_size=1, max_size=2), max_size=3).map(" ".join)


def folded(title: str | None) -> str:
    return " ".join(unescape(title or "").casefold().split())


@given(st.lists(st.one_of(st.none(), LETTERS), min_size=1, max_size=20), WORDS, st.integers(1, 30))
def test_what_is_found_is_what_is_there(titles: list[str | None], query: str, most: int) -> None:
    catalog = Catalog(tuple(f"a{i}" for i in range(len(titles))), (("<x>",),) * len(titles), tuple(titles))
    index, words = Titles(catalog), query.casefold().split()
    found = index.search(query, len(titles))
    lines = {row: f"{folded(title)}\ta{row}" for row, title in enumerate(titles)}
    assert sorted(found) == [row for row, line in lines.items() if all(word in line for word in words)]
    assert index.search(query, most) == found[:most]
    own = catalog.position.get(query)
    rest = [row for row in found if row != own]
    assert own is None or found[0] == own
    begins = sorted(row for row in rest if lines[row].startswith(folded(query)))
    assert rest[: len(begins)] == begins


def test_an_id_is_found_before_all_that_hold_it() -> None:
    ids = tuple(str(i) for i in range(2000))
    index = Titles(Catalog(ids, (("<x>",),) * 2000, (None, "7 up", *(None,) * 1998)))
    assert index.search("7", 3) == [7, 1, 17]
    assert index.search("1999", 5) == [1999]
