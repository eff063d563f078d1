"""Columns: texts, codes, lookups and arrays are what tuples, dictionaries and the safetensors package say."""

import pickle
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from specbeam.catalog import lookup
from specbeam.catalog.arrays import map_arrays, write_arrays
from specbeam.catalog.codes import CodeBuilder, Codes
from specbeam.catalog.errors import CatalogError
from specbeam.catalog.items import Catalog
from specbeam.catalog.lookup import Positions
from specbeam.catalog.rows import row_numbers, row_order
from specbeam.catalog.texts import OptionalTexts, TextColumn, spread

text = st.text(st.characters(exclude_categories=["Cs"]))
word = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
SAME_CRC = ("plumless", "buckeroo")  # two words of one CRC-32


@given(st.lists(text))
def test_texts_are_a_sequence(texts: list[str]) -> None:
    column = TextColumn.of(texts)
    assert (column == texts, list(column), len(column)) == (True, texts, len(texts))
    assert column[1:4] == tuple(texts[1:4])
    assert [column[i] for i in range(-len(texts), 0)] == texts
    assert column != [*texts, ""]
    for outside in (len(texts), -len(texts) - 1):
        with pytest.raises(IndexError):
            column[outside]


@given(st.lists(st.none() | text), st.randoms())
def test_texts_may_be_missing_and_come_in_any_order(texts: list[str | None], chance: object) -> None:
    column = OptionalTexts.of(texts)
    assert (column == texts, list(column), column[:3]) == (True, texts, tuple(texts[:3]))
    order = [place for place, each in enumerate(texts) if each is not None]
    chance.shuffle(order)  # type: ignore[attr-defined]
    pieces = []
    for part in (order[::2], order[1::2]):
        encoded = [str(texts[place]).encode() for place in part]
        pieces.append((np.array(part, np.int64), b"".join(encoded), np.array([*map(len, encoded)], np.int64)))
    assert spread(pieces, len(texts)) == texts


@given(st.lists(st.lists(word, min_size=1, max_size=4).map(tuple), min_size=1), st.integers(0, 50))
def test_codes_are_tuples_of_strings(identifiers: list[tuple[str, ...]], cut: int) -> None:
    codes = Codes.of(identifiers)
    assert (codes == identifiers, list(codes)) == (True, identifiers)
    assert list(codes.strings) == sorted({string for each in identifiers for string in each})
    assert codes.lengths.tolist() == [*map(len, identifiers)]
    pieces = CodeBuilder()
    for part in (identifiers[:cut], identifiers[cut:]):
        pieces.add(part)
    assert pieces.column() == codes


@pytest.mark.parametrize("few", [lookup.FEW, 0])
def test_an_item_is_found_by_its_id(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(lookup, "FEW", few)
    monkeypatch.setattr(lookup, "BLOCK", 100)
    rng = np.random.default_rng(0)
    ids = [
        *dict.fromkeys([f"item-{n}" * (1 + n % 4) for n in rng.integers(0, 10**6, 900).tolist()]),
        "é",
        "",
        *SAME_CRC,
    ]
    found, asked = Positions.of(TextColumn.of(ids)), [*ids[::-1], "nobody", "\ud800", "item-1 ", "x" * 3000]
    known = {text: place for place, text in enumerate(ids)}
    assert found.find(asked).tolist() == [known.get(each, -1) for each in asked]
    assert [int(found.find([each])[0]) for each in asked] == [known.get(each, -1) for each in asked]
    assert (found == known, [*found], len(found), found.keys() - {""}) == (True, ids, len(ids), known.keys() - {""})
    assert (found["é"], found.get("nobody"), "" in found, 7 in found) == (known["é"], None, True, False)
    with pytest.raises(KeyError):
        found["nobody"]
    assert len(found.find([])) == 0


def test_ids_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "FEW", 0)
    assert Positions.of(TextColumn.of(SAME_CRC)).hashes[0] == Positions.of(TextColumn.of(SAME_CRC)).hashes[1]
    found = Positions.of(TextColumn.of(SAME_CRC))
    for few in (lookup.HISTORY, 0):
        monkeypatch.setattr(lookup, "HISTORY", few)
        assert found.find([*SAME_CRC[::-1], "plumles"]).tolist() == [1, 0, -1]
    assert not found.repeated()
    assert not Positions.of(TextColumn.of(SAME_CRC[:1])).find(SAME_CRC[1:])[0] >= 0
    twice = Positions.of(TextColumn.of([*SAME_CRC, "x", *SAME_CRC, "plumless"]))
    assert twice.repeated() == {"plumless": [0, 3, 5], "buckeroo": [1, 4]}


@given(st.lists(st.lists(st.integers(-1, 9), min_size=3, max_size=3), min_size=1), st.sampled_from([9, 2**33]))
def test_rows_in_order(rows: list[list[int]], most: int) -> None:
    table = np.array(rows)
    assert row_order(table, most).tolist() == sorted(range(len(rows)), key=lambda i: (rows[i], i))
    numbers, first = row_numbers(table, most)
    distinct = [*dict.fromkeys(map(tuple, rows))]
    assert numbers.tolist() == [distinct.index(tuple(row)) for row in rows]
    assert first.tolist() == [rows.index([*row]) for row in distinct]


ARRAYS = {
    "a": np.arange(5, dtype=np.int64), "b": np.zeros((3, 2), np.int32), "none": np.empty(0, np.uint8),
    "c": np.array([7], np.uint8), "d": np.arange(3, dtype=np.uint32),
}  # fmt: skip


def test_arrays_are_what_the_package_reads_and_writes(tmp_path: Path) -> None:
    with (tmp_path / "ours").open("wb") as file:
        write_arrays(file, ARRAYS)
    save_file(ARRAYS, tmp_path / "theirs", metadata={"x": "y"})
    read = [load_file(tmp_path / "ours"), map_arrays(tmp_path / "ours"), map_arrays(tmp_path / "theirs")]
    for arrays in read:
        assert arrays.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array)
    assert not read[1]["a"].flags.writeable


def test_mapped_arrays_outlive_their_file(tmp_path: Path) -> None:
    with (tmp_path / "ours").open("wb") as file:
        write_arrays(file, ARRAYS)
    arrays = map_arrays(tmp_path / "ours")
    (tmp_path / "ours").unlink()
    assert arrays["a"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b'{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,16]}}', "a has 16 bytes, expected 8"),
        (b'{"a":{"dtype":"I64","shape":[4],"data_offsets":[0,32]}}', "lie outside"),
        (b'{"a":{"dtype":"I64","shape":[-2],"data_offsets":[16,0]}}', "lie outside"),
        (b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,8]}}', "of the kind F99"),
        (b'{"a":7}', "cannot be read"),
        (b"[]", "cannot be read"),
    ],
)
def test_files_of_no_arrays(tmp_path: Path, header: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 16)
    with pytest.raises(CatalogError, match=message):
        map_arrays(tmp_path / "x")


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(text, st.lists(word, min_size=1, max_size=3), min_size=1, max_size=9), st.data())
def test_a_changed_column_is_refused_or_sound(
    tmp_path_factory: pytest.TempPathFactory, items: dict[str, list[str]], data: st.DataObject
) -> None:
    """Whatever number of a file is another, what is opened is a catalog, or is not opened."""
    folder = tmp_path_factory.mktemp("catalog")
    Catalog(tuple(items), tuple(map(tuple, items.values())), (None,) * len(items)).save(folder / "a.safetensors")
    arrays = {name: array.copy() for name, array in map_arrays(folder / "a.safetensors").items()}
    name = data.draw(st.sampled_from(sorted(name for name, array in arrays.items() if array.size)))
    at = data.draw(st.integers(0, arrays[name].size - 1))
    arrays[name].reshape(-1)[at] = data.draw(
        st.integers(0, 9) if arrays[name].dtype.kind == "u" else st.integers(-2, 9)
    )
    with (folder / "b.safetensors").open("wb") as file:
        write_arrays(file, arrays)
    try:
        catalog = Catalog.open(folder / "b.safetensors")
    except CatalogError as error:
        assert "b.safetensors: " in str(error)  # noqa: PT017 (either is right)
        return
    again = Catalog(tuple(catalog.item_ids), tuple(catalog.identifiers), tuple(catalog.titles))
    assert again == catalog
    assert catalog.position.find(again.item_ids[:]).tolist() == [*range(len(items))]


def test_catalogs_cross_to_other_processes(tmp_path: Path) -> None:
    made = Catalog(["a", "b"], [("x",), ("y", "z")], [None, "t"])
    made.save(tmp_path / "items.safetensors")
    for catalog in (made, Catalog.open(tmp_path / "items.safetensors")):
        for other in (pickle.loads(pickle.dumps(catalog)), deepcopy(catalog)):
            assert other == catalog
            assert (other.position["b"], other.item_ids[1], other.titles[1]) == (1, "b", "t")


@pytest.mark.parametrize("few", [0, 1 << 16])
def test_what_is_no_text_is_no_id(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(lookup, "FEW", few)
    position = Positions.of(TextColumn.of(["1", "b"]))
    assert position.find([1, "b", None]).tolist() == [-1, 1, -1]  # type: ignore[list-item]
    assert [1] not in position
    assert 1 not in position
    assert "1" in position


@pytest.mark.parametrize(
    ("identifiers", "titles", "message"),
    [
        ([(1,)], [None], "tuples of text"),
        ([("x", None)], [None], "tuples of text"),
        ([("x",)], [3], "titles of another"),
    ],
)
def test_catalogs_of_other_things_are_refused(identifiers: object, titles: object, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        Catalog(["a"], identifiers, titles)  # type: ignore[arg-type]
