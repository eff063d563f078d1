"""History files of MiniOneRec: CSV whose lists are Python literals."""

import ast
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history_cases import Request, read, rejected
from specbeam.catalog.errors import HistoryError
from specbeam.catalog.histories.formats import LITERALS
from specbeam.catalog.histories.formats import _literal as literal

HEADER = b"user_id,history_item_title,item_title,history_item_id,item_id\n"


def test_minionerec(tmp_path):
    rows = (
        b"A1,\"['a, b', 'c']\",t,\"[2122, 243]\",7\r\n"
        b'A2,"[\'two\nlines\n\']","t ""quoted""",[926],38\n\n'
        b"A1,[],t,\"['x', 5]\",7"
    )
    assert read(tmp_path, "valid.csv", b"\xef\xbb\xbf" + HEADER + rows) == [
        Request("A1", ("2122", "243"), 2, labels=("7",)),
        Request("A2", ("926",), 3, labels=("38",)),
        Request("A1", ("x", "5"), 7, labels=("7",)),
    ]


@given(
    st.lists(st.integers() | st.text() | st.text("\\x4n'\"07\r", max_size=8), min_size=1, max_size=5),
    st.text("\\dqN{}x4107'\" ,[]u_\n", max_size=12),
)
@settings(max_examples=400, deadline=None)
def test_literals_are_those_of_python_and_nothing_warns(items, odd):
    def python(text):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return ast.literal_eval(text)
            except (ValueError, SyntaxError):
                return None

    assert literal(str(items)) == items
    for text in (f"['{odd}', 1]", f'["{odd}"]', f" [{odd} ]\n"):
        got, expected = literal(text), python(text)
        assert got == expected or (got is None and not LITERALS.fullmatch(text))


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (r"['a\d', 1]", ["a\\d", 1]),
        (r"['\777\8\\d\n']", ["\u01ff\\8\\d\n"]),
        ("['a' 'b', 0x1]", None),
        ("[1or 2]", None),
        (r"[r'\d']", None),
        ("['a' 'b', -1_0]", ["ab", -10]),
        ("[" + "'\\" * 20_000, None),
        ("[" + "1, " * 20_000 + "x]", None),
    ],
)
def test_odd_literals(text, items):
    assert literal(text) == items


def test_minionerec_leaves_the_process_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(warnings, "catch_warnings", None)  # what it changes is every thread's
    rows = rb"""A1,t,t,"['a\d', 5]",7"""
    assert read(tmp_path, "valid.csv", HEADER + rows) == [Request("A1", ("a\\d", "5"), 2, labels=("7",))]


@pytest.mark.parametrize("rows", ["user_id,history_item_id\nA,[1]\n", "user_id,history_item_id,item_id\nA,[1],\n"])
def test_minionerec_without_an_item_id_has_no_labels(tmp_path, rows):
    assert read(tmp_path, "valid.csv", rows.encode()) == [Request("A", ("1",), 2)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"A,t,t,[1]", "got 4 columns; expected the header's 5"),
        (b"A,t,t,12,7", "expected a list such as [926, 38]"),
        (b"A,t,t,print(1),7", "history_item_id is 'print(1)'"),
        (b"A,t,t,[1,7", "history_item_id is '[1'"),
        (b"A,t,t,[],7", "the history of user A is empty"),
        (b"A,t,t,[1.5],7", "got `float`"),
        (b'A,"t"t,t,[1],7', "not a CSV row"),
        (b"A,\xff,t,[1],7", "not UTF-8"),
        (b"A,t,t," + b"(" * 5000 + b",7", "expected a list"),
        (b"A,t,t,[1],7" + b"7" * 200_000, "field larger than field limit"),
    ],
)
def test_a_bad_csv_row_is_rejected_and_reading_goes_on(tmp_path, row, reason):
    content = HEADER + b"A,t,t,[1],7\n" + row + b"\nB,t,t,[2],7\n"
    first, bad, last = read(tmp_path, "valid.csv", content)
    assert (first, last) == (Request("A", ("1",), 2, labels=("7",)), Request("B", ("2",), 4, labels=("7",)))
    assert rejected(bad, 3, reason, row.decode("utf-8", "backslashreplace"), tmp_path / "valid.csv")


def test_an_open_quote_is_reported_with_all_it_swallows(tmp_path):
    content = HEADER + b'A,"t,t,[1],7\nB,"t",t,[2],7\nC,t,t,[3],7\n'
    bad, last = read(tmp_path, "valid.csv", content)
    assert rejected(bad, 2, "Is a quote not closed?", 'A,"t,t,[1],7\nB,"t",t,[2],7', tmp_path / "valid.csv")
    assert last == Request("C", ("3",), 4, labels=("7",))


@pytest.mark.parametrize("content", [b"", b"user,items\n1,[2]\n", b'"user_id"x,history_item_id\n'])
def test_a_csv_without_the_columns_is_refused(tmp_path, content):
    with pytest.raises(HistoryError, match=r"valid.csv, line 1"):
        read(tmp_path, "valid.csv", content)
