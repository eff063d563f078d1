"""Catalogs as tables."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

from specbeam.catalog import tables
from specbeam.catalog.errors import CatalogError
from specbeam.catalog.items import Catalog

IDS = [f"i{n}" for n in range(50)]
IDENTIFIERS = [[f"<a_{n % 7}>", f"<b_{n % 3}>"][: 1 + n % 2] for n in range(50)]
TITLES = [None if n % 5 == 0 else f"Title é {n}" for n in range(50)]
EXPECTED = Catalog(IDS, [*map(tuple, IDENTIFIERS)], TITLES)


def table(**other: Any) -> pa.Table:
    return pa.table({"item": IDS, "identifier": IDENTIFIERS, "title": TITLES, "price": [1.0] * 50} | other)


def saved(path: Path, content: pa.Table) -> Path:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(content, path, row_group_size=17)
    elif path.suffix == ".feather":
        feather.write_feather(content, path, chunksize=13)
    else:
        with ipc.new_stream(path, content.schema) as stream:
            stream.write_table(content, max_chunksize=11)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.arrow"])
@pytest.mark.parametrize("rows", [1 << 16, 7])
def test_a_table_is_a_catalog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, rows: int) -> None:
    monkeypatch.setattr(tables, "ROWS", rows)
    assert Catalog.load(saved(tmp_path / name, table()), None) == EXPECTED


@pytest.mark.parametrize(
    "other",
    [
        {"item": pa.array(IDS).dictionary_encode(), "title": pa.array(TITLES, pa.large_string())},
        {"identifier": pa.array(IDENTIFIERS, pa.large_list(pa.string()))},
        {"identifier": pa.array(IDENTIFIERS, pa.list_(pa.dictionary(pa.int32(), pa.string())))},
        {"item": pa.array(IDS, pa.string_view())},
    ],
)
def test_kinds_of_columns(tmp_path: Path, other: dict[str, Any]) -> None:
    assert Catalog.load(saved(tmp_path / "a.arrow", table(**other)), None) == EXPECTED


def test_whole_numbers_are_ids_and_titles_may_be_absent_or_elsewhere(tmp_path: Path) -> None:
    content = table(item=pa.array(range(50), pa.int64()))
    bare = Catalog.load(saved(tmp_path / "a.parquet", content.drop_columns(["title"])), None)
    assert bare.item_ids == [*map(str, range(50))]
    assert set(bare.titles) == {None}
    nothing = Catalog.load(saved(tmp_path / "b.parquet", table(title=pa.nulls(50))), None)
    assert set(nothing.titles) == {None}
    (tmp_path / "items.json").write_text('{"7": "Seven"}')
    assert Catalog.load(tmp_path / "a.parquet", tmp_path / "items.json").titles[6:8] == (None, "Seven")


def test_a_folder_of_tables_is_one_catalog(tmp_path: Path) -> None:
    for number, start in enumerate((0, 20, 35)):
        saved(tmp_path / "shop" / f"part-{number}.parquet", table().slice(start, (20, 15, 15)[number]))
    (tmp_path / "shop" / ".hidden.parquet").write_bytes(b"")
    assert Catalog.load(tmp_path / "shop", None) == EXPECTED
    saved(tmp_path / "shop" / "part-3.parquet", table().slice(3, 2))
    with pytest.raises(CatalogError, match=r"shop: item 'i3' is in row 4 of part-0\.parquet and row 1 of part-3\."):
        Catalog.load(tmp_path / "shop", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError, match=r"is a folder without tables; expected an index\.json, or files that"):
        Catalog.load(tmp_path / "empty", None)


def changed(values: list[Any], at: int, value: Any) -> list[Any]:
    return [*values[:at], value, *values[at + 1 :]]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"item": changed(IDS, 40, "i7")}, r"a\.parquet: item 'i7' is in row 8 and row 41\. Keep one row"),
        ({"item": changed(IDS, 40, None)}, r"a\.parquet, row 41: it has no item; expected the columns item"),
        ({"item": changed(IDS, 4, "x" * 2000)}, r"a\.parquet: items 'x{80}\.\.\.' have ids of up to 2,000 bytes"),
        ({"item": [1.5] * 50}, r"the column item holds double; expected"),
        ({"identifier": IDS}, r"the column identifier holds (large_)?string; expected"),
        ({"identifier": [[1]] * 50}, r"the column identifier holds lists of int64; expected"),
        ({"identifier": changed(IDENTIFIERS, 40, None)}, r"a\.parquet, row 41: its identifier is not a non-empty list"),
        ({"identifier": changed(IDENTIFIERS, 40, [])}, r"a\.parquet, row 41: its identifier is not a non-empty list"),
        ({"identifier": changed(IDENTIFIERS, 40, ["x", ""])}, r"a\.parquet, row 41: its identifier is not a"),
        (
            {"identifier": changed(IDENTIFIERS, 40, ["x", None])},
            r"a\.parquet, row 41: its identifier is not a",
        ),
        ({"title": [3] * 50}, r"the column title holds int64; expected"),
        ({"item": changed(IDS, 4, "")}, r"a\.parquet: item number 5 has an empty id"),
    ],
)
def test_bad_tables_are_refused_with_the_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(tables, "ROWS", 12)
    with pytest.raises(CatalogError, match=message):
        Catalog.load(saved(tmp_path / "a.parquet", table(**other)), None)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"got the columns \['item'\]; expected the columns item"):
        Catalog.load(saved(tmp_path / "a.parquet", pa.table({"item": IDS})), None)
    with pytest.raises(CatalogError, match="the catalog has no items"):
        Catalog.load(saved(tmp_path / "b.parquet", table().slice(0, 0)), None)
    for name in ("c.parquet", "c.arrow"):
        (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(CatalogError, match=rf"{name}: cannot be read \(after row 0\)"):
            Catalog.load(tmp_path / name, None)
    data = saved(tmp_path / "d.arrow", table()).read_bytes()
    (tmp_path / "d.arrow").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(CatalogError, match=r"d\.arrow: cannot be read \(after row \d+\)"):
        Catalog.load(tmp_path / "d.arrow", None)
    with pytest.raises(CatalogError, match=r"none\.parquet: cannot be read \(after row 0\): .*No such file"):
        Catalog.load(tmp_path / "none.parquet", None)


NO_TEXT = pa.array([b"fine", b"\xff"], pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    ("column", "content"),
    [
        ("item", {"item": NO_TEXT}), ("title", {"title": NO_TEXT}),
        ("identifier", {"identifier": pa.ListArray.from_arrays([0, 1, 2], NO_TEXT)}),
    ],
)  # fmt: skip
def test_bytes_that_are_no_text_are_told_with_their_row(tmp_path: Path, column: str, content: dict[str, Any]) -> None:
    whole = {"item": ["a", "b"], "identifier": [["<a_1>"], ["<a_2>"]]} | content
    for name in ("a.parquet", "a.arrow"):
        with pytest.raises(CatalogError, match=rf"{name}, row 2: the column {column} is no UTF-8 .* Save the texts as"):
            Catalog.load(saved(tmp_path / name, pa.table(whole)), None)


def test_what_a_dictionary_lacks_is_missing(tmp_path: Path) -> None:
    lacking = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None]))
    rows = {"item": ["a", "b"], "identifier": [["<a_1>"], ["<a_2>"]]}
    with pytest.raises(CatalogError, match="row 2: it has no item"):
        Catalog.load(saved(tmp_path / "a.arrow", pa.table(rows | {"item": lacking})), None)
    assert Catalog.load(saved(tmp_path / "b.arrow", pa.table(rows | {"title": lacking})), None).titles == ["a", None]


def test_a_folder_is_read_whole_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "items"
    content = table()
    folder.mkdir()
    saved(folder / "region=eu" / "a.parquet", content.slice(0, 20)).rename(folder / "region=eu" / "A.PARQUET")
    saved(folder / "region=us" / "b.arrow", content.slice(20))
    (folder / "_SUCCESS").touch()
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / "c.parquet").write_bytes(b"half")
    assert Catalog.load(folder, None) == EXPECTED
    (folder / "more.csv").touch()
    with pytest.raises(CatalogError, match=r"holds files that are no tables \('more.csv'\)"):
        Catalog.load(folder, None)


def test_lists_of_one_size_are_identifiers(tmp_path: Path) -> None:
    pairs = [["<a_1>", "<b_1>"], ["<a_1>", "<b_2>"]]
    content = pa.table({"item": ["a", "b"], "identifier": pa.array(pairs, pa.list_(pa.string(), 2))})
    assert Catalog.load(saved(tmp_path / "a.parquet", content), None).identifiers == [*map(tuple, pairs)]
