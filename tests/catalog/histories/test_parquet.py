"""History files as Parquet tables."""

import re
import sys

import pytest

from history_cases import Request, read, rejected, unsourced
from specbeam.catalog import read_histories
from specbeam.catalog.errors import HistoryError
from specbeam.catalog.extras import install


def write_parquet(path, **columns):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet(tmp_path):
    users = [f"u{i}" for i in range(3000)]
    path = write_parquet(tmp_path / "h.parquet", user=users, items=[[i, i + 1] for i in range(3000)], other=users)
    outcomes = unsourced(read_histories([path]))
    assert outcomes == [Request(f"u{i}", (str(i), str(i + 1)), i + 1) for i in range(3000)]


def test_parquet_requests_may_say_how_many_and_which(tmp_path):
    path = write_parquet(
        tmp_path / "h.parquet", deny=[["5"], None, [], None], k=[3, None, None, 0], user=[1, 2, 3, 4],
        items=[[1], [2], [3], [4]], allow=[[6, 7], None, [], [8]],
    )  # fmt: skip
    *requests, bad = unsourced(read_histories([path]))
    assert requests == [
        Request("1", ("1",), 1, k=3, allow=frozenset({"6", "7"}), deny=frozenset({"5"})),
        Request("2", ("2",), 2),
        Request("3", ("3",), 3, allow=frozenset()),
    ]
    assert rejected(bad, 4, "`$.k`", '{"user":4,"items":[4],"k":0,"allow":[8],"deny":null}', path)
    path = write_parquet(tmp_path / "h.parquet", user=[1], items=[[2]], k=["3"])
    (bad,) = unsourced(read_histories([path]))
    assert rejected(bad, 1, "got `str` - at `$.k`", '{"user":1,"items":[2],"k":"3"}', path)


def test_parquet_rows_of_a_dataset_may_say_what_came_next(tmp_path):
    path = write_parquet(
        tmp_path / "h.parquet", labels=[["5", "6"], None, [], ["7", None]], user=[1, 2, 3, 4], items=[[1]] * 4
    )
    *requests, bad = unsourced(read_histories([path]))
    assert requests == [
        Request("1", ("1",), 1, labels=("5", "6")), Request("2", ("1",), 2), Request("3", ("1",), 3),
    ]  # fmt: skip
    assert rejected(bad, 4, "`$.labels[1]`", '{"user":4,"items":[1],"labels":["7",null]}', path)


def test_bad_parquet_rows_are_rejected(tmp_path):
    path = write_parquet(tmp_path / "h.parquet", user=[1, None, 3, 4, 5], items=[["a"], ["b"], None, [], ["c", None]])
    first, *bad = unsourced(read_histories([path]))
    assert first == Request("1", ("a",), 1)
    reasons = ["`$.user`", "`$.items`", "the history of user 4 is empty", "`$.items[1]`"]
    raws = ['{"user":null,"items":["b"]}', '{"user":3,"items":null}', '{"user":4,"items":[]}']
    raws.append('{"user":5,"items":["c",null]}')
    for row, (outcome, reason, raw) in enumerate(zip(bad, reasons, raws, strict=True), 2):
        assert rejected(outcome, row, reason, raw, path)


def test_a_parquet_file_that_is_none_or_lacks_columns_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(HistoryError, match=r"h.parquet: cannot be read as Parquet \(at its start\)"):
        read(tmp_path, "h.parquet", b"PAR1 not really")
    path = write_parquet(tmp_path / "h.parquet", user=[1])
    with pytest.raises(HistoryError, match=r"got the columns \['user'\]; expected user and items"):
        list(read_histories([path]))


def test_parquet_without_pyarrow_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(HistoryError, match=re.escape(install("parquet"))):
        read(tmp_path, "h.parquet", b"PAR1")
