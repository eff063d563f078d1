"""Changes of a catalog: what comes of them, and which are refused."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from specbeam.catalog.errors import CatalogError
from specbeam.catalog.items import Catalog
from specbeam.catalog.updates import CatalogUpdate, Entry, Title

BEFORE = Catalog(("1", "2", "3"), (("<a>",), ("<b>",), ("<c>",)), ("one", None, "three"))


def item(name: str, *identifier: str, title: str | None = None) -> Entry:
    return Entry(item=name, identifier=identifier, title=title)


def test_items_are_retired_then_added_behind_the_others_then_given_titles() -> None:
    update = CatalogUpdate(
        add=(item("4", "<a>", title="four"), item("2", "<d>")),
        retire=("2",),
        titles=(Title(item="1", title=None), Title(item="2", title="two")),
    )
    after = update.of(BEFORE)
    assert after == Catalog(
        ("1", "3", "4", "2"), (("<a>",), ("<c>",), ("<a>",), ("<d>",)), (None, "three", "four", "two")
    )
    assert BEFORE.titles == ("one", None, "three")


def test_a_whole_catalog_takes_the_place_of_another() -> None:
    other = Catalog(("9",), (("<b>",),), ("nine",))
    update = CatalogUpdate.replacing(other)
    assert update.of(BEFORE) == other
    assert msgspec.json.decode(msgspec.json.encode(update), type=CatalogUpdate).of(BEFORE) == other


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"retire": ("7", "8")}, "2 items that are to be retired are not in the catalog: '7', '8'"),
        ({"add": (item("1", "<b>"),)}, "to be added are in the catalog already.*retire it, too: '1'"),
        ({"titles": (Title(item="7", title="x"),)}, "1 items that are given titles are not in the catalog: '7'"),
        ({"titles": (Title(item="1", title="x"),), "retire": ("1",)}, "given titles are not in the catalog: '1'"),
        ({"retire": ("1", "2", "3")}, "leaves no item; expected at least one"),
        ({"add": (item("4"),)}, "without tokens"),
        ({"add": (item("4", "<a>", ""),)}, "empty token"),
        ({"catalog": ()}, "no items"),
        ({"catalog": (item("1", "<a>"), item("1", "<b>"))}, "items '1' occur more than once"),
    ],
)
def test_an_update_that_does_not_fit_is_refused(update: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        CatalogUpdate(**update).of(BEFORE)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({}, "holds nothing; expected a whole catalog"),
        ({"catalog": (item("1", "<a>"),), "retire": ("2",)}, "a whole catalog and changes"),
        ({"retire": ("1", "2", "1")}, "items are retired more than once: '1'"),
        ({"add": (item("4", "<a>"), item("4", "<b>"))}, "items are added more than once: '4'"),
        ({"titles": (Title(item="1", title="a"), Title(item="1", title="b"))}, "given titles more than once: '1'"),
    ],
)
def test_an_update_that_contradicts_itself_is_refused(update: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        CatalogUpdate(**update)


def test_files_are_read_line_by_line(tmp_path: Path) -> None:
    add, titles = tmp_path / "add.jsonl", tmp_path / "titles.jsonl"
    add.write_text('{"item": "4", "identifier": ["<a>"]}\n\n{"item": "5", "identifier": ["<b>"], "title": "five"}\n')
    titles.write_text('{"item": "1", "title": null}\n')
    assert CatalogUpdate.read(add, ("2",), titles) == CatalogUpdate(
        add=(item("4", "<a>"), item("5", "<b>", title="five")), retire=("2",), titles=(Title(item="1", title=None),)
    )


def test_a_malformed_file_is_refused_whole_with_its_lines(tmp_path: Path) -> None:
    good = {"item": "4", "identifier": ["<a>"]}
    bad: list[object] = [good, {"item": "5"}, good, "nonsense", {**good, "item": 6}, {**good, "item": "7", "x": 1}]
    bad += [[], {**good, "identifier": "<a>"}]
    path = tmp_path / "add.jsonl"
    path.write_text("\n".join(map(json.dumps, bad)) + '\n{"item": "8", "item": "9", "identifier": ["<a>"]}\n')
    with pytest.raises(CatalogError) as caught:
        CatalogUpdate.read(path, (), None)
    told = str(caught.value)
    assert told.startswith(f"{path}: 8 lines cannot be used; nothing was changed.\n  line 2: ")
    assert "\n  line 3: item '4' is on line 1 already\n  line 4: " in told
    assert told.endswith("and 3 more")
    with pytest.raises(CatalogError, match="does not exist"):
        CatalogUpdate.read(tmp_path / "none.jsonl", (), None)
