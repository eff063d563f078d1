"""Input that is damaged, of another format, or odd: what is refused as a whole, what line by line, what is kept."""

import gzip
import io
import json
import os
import threading
from pathlib import Path

import pytest

from specbeam.catalog import Catalog, HistoryRequest, Reject, read_histories
from specbeam.catalog import records as records_module
from specbeam.catalog.errors import CatalogError, HistoryError, PoolError, SpecBeamError
from specbeam.pools.groups.items import read_items
from specbeam.pools.texts.read import read_texts
from specbeam.runtime.runs.item_lists import ItemList

DEEP = b"[" * 3000 + b"]" * 3000
LONG = b"9" * 5000


def read(folder, name, content, **options):
    path = folder / name
    path.write_bytes(content)
    return list(read_histories([path], **options))


def reasons(outcomes):
    return {o.line: o.reason for o in outcomes if isinstance(o, Reject)}


def users(outcomes):
    return [o.user for o in outcomes if isinstance(o, HistoryRequest)]


# --- Parquet


def parquet(path, columns, names=None):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    table = pyarrow.table(columns) if names is None else pyarrow.table(columns, names=names)
    write_table(table, path, use_dictionary=False, compression="none", row_group_size=1000)
    return path


def test_parquet_rows_that_python_cannot_hold_are_rejected(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    path = parquet(tmp_path / "h.parquet", {"user": ["first", "second", "third"], "items": [["1"], ["2"], ["3"]]})
    path.write_bytes(path.read_bytes().replace(b"second", b"sec\xffnd"))
    outcomes = list(read_histories([path]))
    assert users(outcomes) == ["first", "third"]
    assert reasons(outcomes)[2].startswith("UnicodeDecodeError")
    for column in (
        pyarrow.array([1, 2], pyarrow.timestamp("ns")),
        pyarrow.array([2**30, 1], pyarrow.date32()),
        pyarrow.array([2**60, 1], pyarrow.timestamp("ms")),
    ):
        outcomes = list(read_histories([parquet(path, {"user": column, "items": [["1"], ["2"]]})]))
        assert list(reasons(outcomes)) == [1, 2]


def test_parquet_with_a_column_twice_is_refused(tmp_path):
    path = parquet(tmp_path / "h.parquet", [["a"], ["b"], [["1"]]], ["user", "user", "items"])
    with pytest.raises(HistoryError, match=r"the columns 'user' are there more than once"):
        list(read_histories([path]))


def test_what_was_read_before_the_damage_is_kept(tmp_path):
    path = parquet(tmp_path / "h.parquet", {"user": [f"u{i}" for i in range(3000)], "items": [["1"]] * 3000})
    content = bytearray(path.read_bytes())
    middle = content.find(b"u2500")
    content[middle - 500 : middle] = b"\xff" * 500
    path.write_bytes(content)
    (tmp_path / "b.jsonl").write_text('{"user": "after", "items": ["1"]}\n')
    with pytest.raises(HistoryError, match=r"cannot be read as Parquet \(after row 2000\)"):
        list(read_histories([path]))
    *before, cut, after = read_histories([path, tmp_path / "b.jsonl"], keep_read=True)
    assert users(before) == [f"u{i}" for i in range(2000)]
    assert (cut.line, cut.rest, cut.source) == (2000, True, str(path))
    assert after.user == "after"


def test_an_lcrec_file_that_ends_early_keeps_what_it_has(tmp_path):
    (tmp_path / "a.inter.json").write_text('{"1": [2],\n"3": [4')
    (tmp_path / "b.jsonl").write_text('{"user": "after", "items": ["1"]}\n')
    first, cut, after = read_histories([tmp_path / "a.inter.json", tmp_path / "b.jsonl"], keep_read=True)
    assert (first.user, cut.rest, after.user) == ("1", True, "after")
    assert "line 2" in cut.reason
    (tmp_path / "a.inter.json").write_text('{"3": [4')
    with pytest.raises(HistoryError, match="Is the file complete"):  # nothing has been read
        list(read_histories([tmp_path / "a.inter.json", tmp_path / "b.jsonl"], keep_read=True))


# --- odd values


@pytest.mark.parametrize("value", [LONG, DEEP, b"1e999", b"NaN", b'"\\ud800"', b'"a\x00b"', b'"\xff"'])
def test_an_odd_value_costs_its_line_alone(tmp_path, value):
    content = b'{"user": 1, "items": [2]}\n{"user": 3, "items": [%s]}\n{"user": 5, "items": [6]}\n' % value
    outcomes = read(tmp_path, "h.jsonl", content)
    assert users(outcomes) == ["1", "5"]
    assert list(reasons(outcomes)) == [2]


@pytest.mark.parametrize("value", [LONG, DEEP, LONG + b", " + DEEP, b"1e999", b"NaN", b'{"a": 1}', b'"\xff"'])
def test_an_odd_value_costs_its_lcrec_entry_alone(tmp_path, value):
    outcomes = read(tmp_path, "h.inter.json", b'{"1": [2],\n"3": [%s],\n"5": [6]}' % value)
    assert users(outcomes) == ["1", "5"]
    assert list(reasons(outcomes)) == [2]


def test_a_deep_lcrec_entry_ends_where_its_brackets_do(tmp_path):
    deep = b"[" * 3000 + b'"]\\"}\\\\", {"a[": 1}\n' + b"]" * 3000
    outcomes = read(tmp_path, "h.inter.json", b'{"1": [2],\n"3": %s,\n"5": [6], "3": [1]}' % deep)
    assert users(outcomes) == ["1", "5"]
    assert reasons(outcomes).keys() == {2, 4}
    assert reasons(outcomes)[2] == "nested too deeply; expected user to [items, ...]"
    assert outcomes[1].raw == f'"3": {deep.decode()}'
    for broken, place in ((deep[:-1], "closed by '}'"), (deep[:-2001] + b'"', "never closed")):
        with pytest.raises(HistoryError, match=f"line [23], .* nested too deeply, and {place}"):
            read(tmp_path, "h.inter.json", b'{"1": [2],\n"3": %s}' % broken)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"0": ["<a>"], "1": [%s]}' % LONG, "a number of more than 4300 digits"),
        (b'{"0": ["<a>"], "1": %s}' % DEEP, "nested too deeply"),
        (b'{"0": ["\\ud800"]}', "half a surrogate pair"),
        (b'{"\\udc00": ["<a>"]}', "half a surrogate pair"),
        (gzip.compress(b'{"0": ["<a>"]}', mtime=0), "compressed by gzip"),
        ('{"0": ["<a>"]}'.encode("utf-16"), "the file is UTF-16"),
    ],
)
def test_odd_catalogs_are_refused(tmp_path, content, message):
    path = tmp_path / "index.json"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        Catalog.load(path, None)
    good = tmp_path / "good.json"
    good.write_text('{"0": ["<a>"]}')
    titles = tmp_path / "items.json"
    titles.write_bytes(content.replace(b'["<a>"]', b'"title"'))
    with pytest.raises(CatalogError, match=message if b"999" not in content else "digits|title"):
        Catalog.load(good, titles)


def test_a_line_without_an_end_is_rejected_and_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(records_module, "LONGEST", 1000)
    content = (
        b'{"user": 1, "items": [2]}\n{"user": "' + b"x" * 50_000 + b'", "items": [1]}\r\n{"user": 3, "items": [4]}'
    )
    outcomes = read(tmp_path, "h.jsonl", content)
    assert users(outcomes) == ["1", "3"]
    assert outcomes[1].reason.startswith("longer than")
    assert len(outcomes[1].raw) < 1100
    exact = b'{"user": "' + b"x" * 972 + b'", "items": [1]}\r\n'
    assert isinstance(read(tmp_path, "h.jsonl", exact)[0], HistoryRequest)


# --- keys that occur twice


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"user": 1, "items": [2], "user": 3}', "user"),
        ('{"user": 1, "items": [2], "items" : [3]}', "items"),
        ('{"user": 1, "items": [2], "k": 1, "\\u006b": 2}', "k"),
        ('{"user": 1, "items": [2], "x": {"user": 1}}', None),
        ('{"user": 1, "items": ["user", "a:b"], "y": "items", "k": 2}', None),
        ('{"user": 1, "items": [2], "note": "caf\\u00e9 \\u0041: b", "deny": ["k"]}', None),
        ('{"user": 1, "items": [2], "x": ' + "9" * 5000 + ', "deny": ["k"], "y": {"k": 1, "k": 2}}', None),
    ],
)
def test_a_key_twice_is_a_reject(tmp_path, line, key):
    (outcome,) = read(tmp_path, "h.jsonl", line.encode())
    if key is None:
        assert isinstance(outcome, HistoryRequest)
    else:
        assert outcome.reason.startswith(f"the key '{key}' occurs more than once")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ('{"0": {"title": "a"},\n"0": {"title": "b"}}', "item '0' occurs on lines 1, 2"),
        ('{"0": {"title": "a", "title": "b"}}', "item '0' has the key 'title' more than once"),
        ('{"0": {"title": "a", "\\u0074itle": "b"}}', "item '0' has the key 'title' more than once"),
        ('\ufeff{"0": {"title": "a", "title": NaN}}', "item '0' has the key 'title' more than once"),
    ],
)
def test_items_that_are_described_twice_are_refused(tmp_path, items, message):
    (tmp_path / "index.json").write_text('{"0": ["<a>"]}')
    path = tmp_path / "items.json"
    path.write_text(items)
    with pytest.raises(CatalogError, match=message):
        Catalog.load(tmp_path / "index.json", path)
    if "NaN" not in items:
        with pytest.raises(CatalogError, match=message):
            read_items(path)


def test_what_looks_like_a_key_twice_is_read(tmp_path):
    (tmp_path / "index.json").write_text('{"0": ["<a>"], "a\\"b": ["<b>"]}')
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"0": {"title": "T", "words": ["title", "title"], "x": {"title": 1}}, 'a"b': "U"}))
    assert Catalog.load(tmp_path / "index.json", path).titles == ("T", "U")


# --- another format

LINES = {
    "jsonl": '{"user": 1, "items": [2, 3]}\n{"user": 2, "items": ["4"]}\n',
    "lcrec": '{"1": [2, 3],\n"2": ["4"]}',
    "atspeed": "1 2 3\n2 4\n",
    "minionerec": 'user_id,history_item_id\nA,"[2, 3]"\nB,[4]\n',
}


@pytest.mark.parametrize("given", LINES)
@pytest.mark.parametrize("said", [*LINES, "parquet"])
@pytest.mark.parametrize("piped", [False, True])
def test_another_format_is_refused_and_the_one_that_fits_is_named(tmp_path, given, said, piped):
    content = LINES[given].encode()
    path = Path("-") if piped else tmp_path / "file"
    if not piped:
        path.write_bytes(content)
    stdin = io.BufferedReader(io.BytesIO(content))
    if given == said:
        assert len(list(read_histories([path], format=said, stdin=stdin))) == 2
    else:
        with pytest.raises(
            HistoryError, match="standard input" if piped and said == "parquet" else f"Pass --format {given}"
        ):
            list(read_histories([path], format=said, stdin=stdin))


def test_a_file_whose_name_says_nothing_is_told_by_its_lines(tmp_path):
    with pytest.raises(HistoryError, match="Its beginning fits --format lcrec"):
        read(tmp_path, "h.json", LINES["lcrec"].encode())


def test_prose_is_refused_as_a_whole(tmp_path):
    with pytest.raises(HistoryError, match=r"none of its first 30 lines is atspeed \(line 1.*no other format fits"):
        read(tmp_path, "h.txt", b"once upon a time\n" * 30)
    assert len(read(tmp_path, "h.txt", b"once upon a time\n" * 30 + b"1 2\n")) == 31  # some line can be used
    assert len(read(tmp_path, "h.txt", b"1\n" * 30)) == 30  # users without items


def test_compressed_files_are_named_as_such(tmp_path):
    packed = gzip.compress(LINES["jsonl"].encode())
    with pytest.raises(HistoryError, match=r"compressed by gzip; .*zcat"):
        read(tmp_path, "h.jsonl", packed)
    (tmp_path / "texts.jsonl").write_bytes(packed)
    with pytest.raises(PoolError, match="compressed by gzip"):
        list(read_texts([tmp_path / "texts.jsonl"]))
    (tmp_path / "items.txt").write_bytes(packed)
    with pytest.raises(SpecBeamError, match="compressed by gzip"):
        ItemList.read(tmp_path / "items.txt")


def test_a_named_pipe_will_do(tmp_path):
    path = tmp_path / "h.jsonl"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(LINES["jsonl"],))
    writer.start()
    assert users(read_histories([path])) == ["1", "2"]
    writer.join()
    with pytest.raises(HistoryError, match="not a regular file"):
        read_histories([path], format="parquet")
