"""Which reader a history file gets, and all files as one stream."""

import io
import json
import sys
from pathlib import Path

import pytest

from history_cases import Request
from places import DATA
from specbeam.catalog import read_histories
from specbeam.catalog.errors import HistoryError


def test_standard_input_is_jsonl_unless_said(monkeypatch):
    line = b'{"user": 1, "items": [2]}\n'
    assert list(read_histories([Path("-")], stdin=io.BytesIO(line))) == [Request("1", ("2",), 1, "-")]
    stdin = io.BytesIO(b"1 2\n")
    outcomes = read_histories([Path("-")], format="atspeed", item_base=1, stdin=stdin)
    assert list(outcomes) == [Request("1", ("1",), 1, "-")]
    assert not stdin.closed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line)))
    assert list(read_histories([Path("-")])) == [Request("1", ("2",), 1, "-")]
    with pytest.raises(HistoryError, match="Parquet cannot be read from standard input"):
        read_histories([Path("-")], format="parquet")


def test_files_are_read_one_after_another(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"user": 1, "items": [2]}\n')
    (tmp_path / "b.inter.json").write_text('{"1": [3]}')
    (tmp_path / "c").write_text('{"user": 1, "items": [4]}\n')
    got = list(read_histories([tmp_path / "a.jsonl", tmp_path / "b.inter.json", tmp_path / "a.jsonl"]))
    assert [request.items for request in got] == [("2",), ("3",), ("2",)]
    assert next(read_histories([tmp_path / "c"], format="jsonl")) == Request("1", ("4",), 1, str(tmp_path / "c"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("h.json", {}, r"h.json: the name does not tell the format. .*jsonl \(.jsonl, .ndjson\); lcrec"),
        ("h.jsonl", {"format": "json"}, "got the format 'json'; expected one of jsonl, lcrec, atspeed"),
        ("absent.jsonl", {}, "absent.jsonl: does not exist"),
        ("folder.jsonl", {}, "folder.jsonl: is a directory"),
        ("h.jsonl", {"item_base": 1}, "item base of 1 is for AtSpeed files only; got .*h.jsonl"),
    ],
)
def test_misuse_is_an_error_before_anything_is_read(tmp_path, name, options, message):
    (tmp_path / "folder.jsonl").mkdir()
    for file in ("h.json", "h.jsonl"):
        (tmp_path / file).write_text("")
    with pytest.raises(HistoryError, match=message):
        read_histories([tmp_path / name], **options)


def test_no_file_is_an_error():
    with pytest.raises(HistoryError, match="at least one"):
        read_histories([])


@pytest.mark.parametrize(
    ("names", "requests", "rejects", "items", "users"),
    [
        (["beauty/sequential_train.txt"], 19_383, 0, 122_241, 19_383),
        (["beauty/sequential_test.txt"], 3_553, 15_830, 7_313, 3_553),
        (["beauty/sequential_train.txt", "beauty/sequential_valid.txt"], 19_383, 0, 122_241 + 9_316, 19_383),
        (["games/sequential_train.txt", "games/sequential_valid.txt"], 49_156, 0, 299_987 + 22_609, 49_156),
        (["office/valid.csv"], 4_866, 0, 21_784, 1_795),
        (["office/test.csv"], 4_866, 0, 24_194, 2_024),
    ],
)
def test_real_files(names, requests, rejects, items, users):
    paths = [DATA / name for name in names]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"no real data at {DATA} (set SPECBEAM_DATA)")
    outcomes = list(read_histories(paths, item_base=0 if names[0].endswith(".csv") else 1))
    good = [outcome for outcome in outcomes if isinstance(outcome, Request)]
    assert (len(good), len(outcomes) - len(good)) == (requests, rejects)
    assert (sum(len(request.items) for request in good), len({request.user for request in good})) == (items, users)
    index = json.loads((paths[0].parent / "index.json").read_text())
    assert all(item in index for request in good for item in request.items)
