"""The catalog's files: what is read, what is refused, and how the refusal reads."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from places import DATA
from specbeam.catalog import Catalog
from specbeam.catalog.errors import CatalogError

text = st.text(st.characters(exclude_categories=["Cs"]))
word = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def load(folder, index, items=None):
    """Load a catalog from texts (or values, written as JSON)."""
    paths = []
    for name, content in (("index.json", index), ("items.json", items)):
        path = folder / name
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        paths.append(path if content is not None else None)
    return Catalog.load(*paths)


INDEX = {"0": ["<a_1>", "<b_2>"], "7": ["<a_1>", "<b_1>"], "x": ["<a_1>", "<b_2>"]}


def test_load_keeps_the_files_order(tmp_path):
    catalog = load(tmp_path, INDEX, {"7": {"title": "Seven", "categories": ["c"]}, "0": "Zero", "9": {"title": "no"}})
    assert catalog.item_ids == ("0", "7", "x")
    assert catalog.identifiers == (("<a_1>", "<b_2>"), ("<a_1>", "<b_1>"), ("<a_1>", "<b_2>"))
    assert catalog.titles == ("Zero", "Seven", None)
    assert catalog.position == {"0": 0, "7": 1, "x": 2}
    assert (catalog.length, catalog.tokens) == (2, ("<a_1>", "<b_1>", "<b_2>"))


def test_titles_are_optional(tmp_path):
    assert load(tmp_path, INDEX).titles == (None, None, None)
    assert load(tmp_path, INDEX, {"0": {"title": None}, "7": {"brand": "b"}}).titles == (None, None, None)


def test_what_python_writes_is_read(tmp_path):
    items = b'\xef\xbb\xbf{"0": {"price": NaN, "title": "Zero"}}'
    assert load(tmp_path, b"\xef\xbb\xbf" + json.dumps(INDEX).encode(), items).titles[0] == "Zero"


def test_token_ids(tmp_path):
    catalog = load(tmp_path, INDEX)
    ids = catalog.token_ids({"<a_1>": 10, "<b_1>": 11, "<b_2>": 12, "other": 10})
    assert ids.dtype == "int64"
    assert ids.tolist() == [[10, 12], [10, 11], [10, 12]]
    with pytest.raises(CatalogError, match=r"2 of the catalog's 3 tokens are not .* '<b_1>', '<b_2>'"):
        catalog.token_ids({"<a_1>": 10})
    with pytest.raises(CatalogError, match=r"'<b_1>', '<b_2>'.*distinct"):
        catalog.token_ids({"<a_1>": 10, "<b_1>": 11, "<b_2>": 11})


def test_identifiers_may_differ_in_length(tmp_path):
    catalog = load(tmp_path, {"0": ["<a>", "<b>"], "1": ["<a>"], "2": ["<b>", "<a>", "<a>"], "3": ["<a>"]})
    assert (catalog.length, catalog.tokens) == (3, ("<a>", "<b>"))
    ids = catalog.token_ids({"<a>": 0, "<b>": 7})
    assert ids.dtype == "int64"
    assert ids.tolist() == [[0, 7, -1], [0, -1, -1], [7, 0, 0], [0, -1, -1]]


@settings(deadline=None)
@given(st.dictionaries(text, st.tuples(st.lists(word, min_size=1, max_size=3), st.none() | text), min_size=1))
def test_save_and_open_agree(tmp_path_factory, items):
    path = tmp_path_factory.mktemp("catalog") / "items.safetensors"
    identifiers = tuple(tuple(tokens) for tokens, _ in items.values())
    catalog = Catalog(tuple(items), identifiers, tuple(title for _, title in items.values()))
    catalog.save(path)
    assert Catalog.open(path) == catalog


def test_a_damaged_bundle_file_names_the_line(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_bytes(b'{"item":"0","identifier":["<a>"]}\n{"item":"1","identifier":"<a>"}\n')
    with pytest.raises(CatalogError, match=r"items.jsonl, line 2: Expected `array`, got `str`"):
        Catalog.open(path)
    path.write_bytes(b"")
    with pytest.raises(CatalogError, match=r"items.jsonl: the catalog has no items"):
        Catalog.open(path)
    with pytest.raises(CatalogError, match=r"absent.jsonl: cannot be read: No such file"):
        Catalog.open(tmp_path / "absent.jsonl")


def test_a_key_twice_is_named_with_its_lines(tmp_path):
    index = b'{\n "0": ["<a>", "<b>"],\n "1": ["0\\":", "<b>"],\n\n "\\u0030": ["<a>", "<c>"], "2": ["<a>", "<d>"]\n}'
    with pytest.raises(CatalogError, match=r"index.json: item '0' occurs on lines 2, 5\. Keep one"):
        load(tmp_path, index)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([["0", ["<a>"]]], "got a JSON list; expected an object"),
        ("text", "got a JSON str; expected an object"),
        ({}, "the catalog has no items"),
        ({"0": ["<a>"], "1": "<a>"}, "1 identifiers are not .*: item '1' has \"<a>\""),
        ({"0": ["<a>"], "1": []}, r"item '1' has \[\]"),
        ({"0": ["<a>"], "1": [""]}, r'item \'1\' has \[""\]'),
        ({"0": ["<a>"], "1": [7]}, r"item '1' has \[7\]"),
        ({"0": {"a": 1}}, "item '0' has"),
        (b'{\n"0": ["<a>"],\n"1": ["<b>"', r"index.json, line 3, column 12: not valid JSON"),
        (b'{\n"0": ["\xff"]}', r"index.json, line 2: not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_index_is_refused(tmp_path, index, message):
    with pytest.raises(CatalogError, match=message) as caught:
        load(tmp_path, index)
    assert str(tmp_path / "index.json") in str(caught.value)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "got a JSON list; expected an object"),
        ({"0": {"title": "a"}, "7": {"title": 7}}, "items '7' have a title that is not a string"),
        ({"0": 3}, "items '0' have a title"),
        (b'{"0": {"title": "a"},\n"1" 3}', "items.json, line 2, column 5"),
    ],
)
def test_bad_titles_are_refused(tmp_path, items, message):
    with pytest.raises(CatalogError, match=message):
        load(tmp_path, INDEX, items)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(CatalogError, match=r"nowhere.json: cannot be read: No such file"):
        Catalog.load(tmp_path / "nowhere.json", None)
    (tmp_path / "index.json").write_text(json.dumps(INDEX))
    with pytest.raises(CatalogError, match=r"titles.json: cannot be read"):
        Catalog.load(tmp_path / "index.json", tmp_path / "titles.json")


@pytest.mark.parametrize(
    ("ids", "identifiers", "titles", "message"),
    [
        (("a", "b", "a"), (("x",),) * 3, (None,) * 3, "items 'a' occur more than once"),
        (("a", "b"), (("x",), ()), (None,) * 2, "items 'b' have an identifier without tokens"),
        (("a", "b"), (("x",), ("",)), (None,) * 2, "items 'b' have an identifier .* empty token"),
        (("a", "b"), (("x",),), (None,) * 2, "2 item ids, 1 identifiers, 2 titles"),
    ],
)
def test_a_catalog_made_in_memory_is_checked_too(ids, identifiers, titles, message):
    with pytest.raises(CatalogError, match=message):
        Catalog(ids, identifiers, titles)


@pytest.mark.parametrize(
    ("name", "items", "identifiers", "tokens", "length"),
    [("beauty", 12_035, 12_023, 859, 4), ("games", 17_332, 17_289, 1_014, 4), ("office", 3_459, 3_444, 600, 3)],
)
def test_real_catalogs(name, items, identifiers, tokens, length):
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set SPECBEAM_DATA)")
    catalog = Catalog.load(folder / "index.json", folder / "items.json")
    got = (len(catalog.item_ids), len(set(catalog.identifiers)), len(catalog.tokens), catalog.length)
    assert got == (items, identifiers, tokens, length)
    assert catalog.item_ids == tuple(map(str, range(items)))
    assert all(catalog.titles)


def test_importing_the_catalog_is_light():
    code = "import sys, specbeam.catalog; print([m for m in ('torch','transformers','pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
