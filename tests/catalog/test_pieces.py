"""Catalogs that are read in pieces: the same as read whole, and faults with their lines."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specbeam.catalog import json_pieces
from specbeam.catalog.errors import CatalogError
from specbeam.catalog.items import Catalog

tricky = st.text(st.sampled_from('ab"\\],}{[: \n\té'), min_size=1, max_size=6)
members = st.dictionaries(tricky, st.lists(tricky, min_size=1, max_size=3), min_size=1, max_size=12)
titles = st.none() | tricky | st.fixed_dictionaries(
    {}, optional={"title": st.none() | tricky, "more": st.lists(tricky), "in": st.dictionaries(tricky, tricky)}
)  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_pieces, "PIECE", 40)


def written(folder: Path, name: str, content: Any, indent: int | None = None) -> Path:
    data = content if isinstance(content, bytes) else json.dumps(content, indent=indent, ensure_ascii=False).encode()
    (folder / name).write_bytes(data)
    return folder / name


@settings(deadline=None, max_examples=200)
@given(index=members, said=st.data(), size=st.integers(1, 60), indent=st.sampled_from([None, 0, 2]))
def test_pieces_make_the_whole(
    tmp_path_factory: pytest.TempPathFactory, index: dict[str, list[str]], said: st.DataObject, size: int,
    indent: int | None,
) -> None:  # fmt: skip
    """Wherever the ends of pieces fall: within texts, escapes and values that look like ends."""
    folder = tmp_path_factory.mktemp("pieces")
    described = said.draw(st.dictionaries(st.sampled_from([*index, "other"]), titles.filter(lambda t: t is not None)))
    paths = written(folder, "index.json", index, indent), written(folder, "items.json", described, indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "PIECE", size)
        patch.setattr(json_pieces, "TRIES", 3)
        catalog = Catalog.load(*paths)
    assert catalog.item_ids == [*index]
    assert catalog.identifiers == [*map(tuple, index.values())]
    expected = [described.get(item) for item in index]
    assert catalog.titles == [each.get("title") if isinstance(each, dict) else each for each in expected]


def test_many_pieces_are_read(small: None, tmp_path: Path) -> None:
    index = {f"i{n}": [f"<a_{n % 7}>", f"<b_{n % 3}>"] for n in range(500)}
    path = written(tmp_path, "index.json", index)
    found = [*json_pieces.read_pieces(path, json.loads)]
    assert len(found) > 200
    assert {key: value for _, piece in found for key, value in piece.items()} == index


def index_of(count: int) -> dict[str, list[str]]:
    return {f"i{n}": [f"<a_{n}>"] for n in range(count)}


def lines(*members: str) -> bytes:
    return ("{\n" + ",\n".join(members) + "\n}").encode()


TITLED = [f'"i{n}": "t {n}"' for n in range(40)]
DESCRIBED = [f'"i{n}": {{"title": "{n}"}}' for n in range(40)]
LONG = [f'"i{n}": ["<a_{n}>"]' for n in range(40)]  # member n is on line n + 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines(*LONG, '"i3": ["<b>"]'), r"index\.json: item 'i3' occurs on lines 5, 42\. Keep one"),
        (lines(*LONG, '"\\u00693": ["<b>"]'), r"index\.json: item 'i3' occurs on lines 5, 42\. Keep one"),
        (lines(*LONG, '"x": ["<b>"', *LONG[:2]), r"index\.json, line 43, column 5: not valid JSON"),
        (lines(*LONG, '"x": "<b>"', '"y": []'), r"""2 identifiers are not .*: item 'x' has "<b>"; item 'y' has \[\]"""),
        (lines(*LONG) + b" {}", r"index\.json, line 42, column \d+: not valid JSON: Extra data"),
        (lines(*LONG)[:-2] + b",\n}", r"index\.json, line 4\d.*: not valid JSON"),
        (lines(*LONG)[:-1], r"index\.json, line 4\d, column \d+: not valid JSON"),
        (lines(*LONG, '"x": ["\\ud800"]'), r"index\.json: '\\ud800' is half a surrogate pair"),
        (lines(*LONG)[:-1] + b',"x": ["\xff"]}', r"index\.json, line 42: not UTF-8"),
        (lines(*LONG[:3], f'"{"x" * 1025}": ["<b>"]'), r"items 'x{80}\.\.\.' have ids of up to 1,025 bytes; .* 1,024"),
    ],
)
def test_faults_of_later_pieces(small: None, tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        Catalog.load(written(tmp_path, "index.json", content), None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines(*DESCRIBED, '"i3": {"title": "x"}'), "'i3' occurs on lines 5, 42"),
        (lines(*TITLED, '"i3": "x"'), "'i3' occurs on lines 5, 42"),
        (lines(*(line.replace("i", "o") for line in TITLED), '"o3": "x"'), "'o3' occurs on lines 5, 42"),  # no item
        (lines(*TITLED, '"x": {"title": "a", "title": "b"}'), "'x' has the key 'title'"),
        (lines(*TITLED, '"x": {"title": 3}'), "items 'x' have a title that is not"),
        (lines(*TITLED, '"x" 3'), r"items\.json, line 42, column 5"),
    ],
)
def test_faults_of_later_titles(small: None, tmp_path: Path, content: bytes, message: str) -> None:
    index = written(tmp_path, "index.json", index_of(40))
    with pytest.raises(CatalogError, match=message):
        Catalog.load(index, written(tmp_path, "items.json", content))


def test_an_id_of_a_kilobyte_is_one(tmp_path: Path) -> None:
    long = "x" * 1024
    assert Catalog.load(written(tmp_path, "index.json", {long: ["<a>"]}), None).position[long] == 0
