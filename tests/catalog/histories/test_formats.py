"""History files: every format, real and damaged."""

import ast
import io
import itertools
import json
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from places import DATA
from specbeam.catalog import HistoryRequest, Reject, read_histories
from specbeam.catalog.errors import HistoryError
from specbeam.catalog.extras import install
from specbeam.catalog.histories.formats import LITERALS
from specbeam.catalog.histories.formats import _literal as literal

Request = HistoryRequest


def read(folder, name, content, **options):
    path = folder / name
    path.write_bytes(content)
    outcomes = list(read_histories([path], **options))
    assert all(outcome.source == str(path) for outcome in outcomes)
    return unsourced(outcomes)


def unsourced(outcomes):
    """The outcomes, the requests without their file's name."""
    return [replace(outcome, source="") if isinstance(outcome, Request) else outcome for outcome in outcomes]


def rejected(outcome, line, reason, raw, source):
    assert isinstance(outcome, Reject)
    assert (outcome.line, outcome.raw, outcome.source) == (line, raw, str(source))
    assert reason in outcome.reason
    return True


# --- JSON lines


def test_jsonl(tmp_path):
    content = b'\xef\xbb\xbf{"user": "u1", "items": ["a", 7]}\r\n\n  \n{"items": [1], "user": 5, "at": {"x": 1}}'
    assert read(tmp_path, "h.jsonl", content) == [Request("u1", ("a", "7"), 1), Request("5", ("1",), 4)]


def test_a_repeated_user_is_another_request(tmp_path):
    content = b'{"user": 1, "items": [2]}\n{"user": 1, "items": [2]}\n'
    assert read(tmp_path, "h.ndjson", content) == [Request("1", ("2",), 1), Request("1", ("2",), 2)]


def test_jsonl_requests_may_say_how_many_and_which(tmp_path):
    content = (
        b'{"user": 1, "items": [2], "k": 3, "allow": [4, "5", 4], "deny": ["6", 7]}\n'
        b'{"user": 1, "items": [2], "k": null, "allow": null, "deny": null}\n'
        b'{"user": 1, "items": [2], "allow": [], "deny": []}\n'
        b'{"user": 1, "items": [2], "exclude_history": true}\n'
    )
    assert read(tmp_path, "h.jsonl", content) == [
        Request("1", ("2",), 1, k=3, allow=frozenset({"4", "5"}), deny=frozenset({"6", "7"})),
        Request("1", ("2",), 2),
        Request("1", ("2",), 3, allow=frozenset()),  # nothing at all, which is not the same as no list
        Request("1", ("2",), 4, exclude_history=True),
    ]


def test_jsonl_rows_of_a_dataset_may_say_what_came_next(tmp_path):
    content = (
        b'{"user": 1, "items": [2], "labels": [3, "4"]}\n'
        b'{"user": 1, "items": [2], "labels": null}\n'
        b'{"user": 1, "items": [2], "labels": []}\n'
    )
    assert read(tmp_path, "h.jsonl", content) == [
        Request("1", ("2",), 1, labels=("3", "4")), Request("1", ("2",), 2), Request("1", ("2",), 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        *(
            (b'{"user": "u", "items": [1], "k": ' + k + b"}", "`$.k`; expected")
            for k in (b"0", b"-3", b'"x"', b'"3"', b"3.0", b"true", b"[3]")
        ),
        (b'{"user": "u", "items": [1], "allow": "7"}', "Expected `array | null`, got `str` - at `$.allow`; expected"),
        (b'{"user": "u", "items": [1], "deny": {"7": 1}}', "got `object` - at `$.deny`; expected"),
        (b'{"user": "u", "items": [1], "labels": 7}', "Expected `array | null`, got `int` - at `$.labels`; expected"),
        (b'{"user": "u", "items": [1], "labels": [null]}', "got `null` - at `$.labels[0]`; expected"),
        (b'{"user": "u", "items": [1], "deny": [1.5]}', "got `float` - at `$.deny[0]`; expected"),
        (b'{"user": "u", "items": [1]', "truncated"),
        (b'{"user": "u", "items": [1]} {}', "JSON is malformed"),
        (b'{"user": "u"}', "missing required field `items`"),
        (b'{"items": [1]}', "missing required field `user`"),
        (b'{"user": "u", "items": "1, 2"}', "Expected `array`, got `str`"),
        (b'{"user": "u", "items": [1, null]}', "got `null` - at `$.items[1]`"),
        (b'{"user": 1.5, "items": [1]}', "got `float` - at `$.user`"),
        (b'{"user": true, "items": [1]}', "got `bool` - at `$.user`"),
        (b"[1, 2]", "Expected `object`, got `array`"),
        (b'{"user": "u", "items": []}', "the history of user u is empty"),
        (b'{"user": "u", "items": [1], "x": ' + b"[" * 5000, "recursion"),
    ],
)
def test_a_bad_jsonl_line_is_rejected_and_reading_goes_on(tmp_path, line, reason):
    content = b'{"user": 1, "items": [2]}\n' + line + b'\r\n{"user": 3, "items": [4]}\n'
    first, bad, last = read(tmp_path, "h.jsonl", content)
    assert (first, last) == (Request("1", ("2",), 1), Request("3", ("4",), 3))
    assert rejected(bad, 2, reason, line.decode(), tmp_path / "h.jsonl")


def test_bad_utf8_is_rejected_wherever_it_stands(tmp_path):
    outcomes = read(tmp_path, "h.jsonl", b'{"user": 1, "items": [2], "note": "\xff"}\n{"user": 1, "items": [2]}')
    raw = '{"user": 1, "items": [2], "note": "\\xff"}'
    assert rejected(outcomes[0], 1, "not UTF-8 (byte 35)", raw, tmp_path / "h.jsonl")
    assert outcomes[1:] == [Request("1", ("2",), 2)]


def test_utf16_is_refused(tmp_path):
    with pytest.raises(HistoryError, match="UTF-16"):
        read(tmp_path, "h.jsonl", '{"user": 1, "items": [2]}'.encode("utf-16"))


def test_an_empty_file_has_no_requests(tmp_path):
    assert read(tmp_path, "h.jsonl", b"") == []
    assert read(tmp_path, "h.txt", b"\n") == []


ids = st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(2**70), 2**70)


def test_a_line_of_control_characters_is_rejected(tmp_path):
    path = tmp_path / "sequential_test.txt"
    path.write_bytes(b"1 2\n\x1c\n3 4\n")
    first, bad, last = read_histories([path])
    assert isinstance(bad, Reject)
    assert bad.line == 2
    assert (first.user, last.user) == ("1", "3")


@settings(deadline=None)
@given(st.lists(st.tuples(ids, st.lists(ids, min_size=1, max_size=5)), max_size=8), st.booleans())
def test_jsonl_and_lcrec_give_back_what_was_written(tmp_path_factory, requests, ascii_only):
    folder = tmp_path_factory.mktemp("history")
    expected = [(str(user), tuple(map(str, items))) for user, items in requests]
    lines = [json.dumps({"user": u, "items": i}, ensure_ascii=ascii_only) for u, i in requests]
    got = read(folder, "h.jsonl", "\n".join(lines).encode())
    assert got == [Request(user, items, line) for line, (user, items) in enumerate(expected, 1)]
    expected = list(dict(expected).items())
    members = [f"{json.dumps(u)} : {json.dumps(list(i), ensure_ascii=ascii_only)}" for u, i in expected]
    got = read(folder, "h.inter.json", ("{\n" + ",\n".join(members) + "}\n").encode())
    assert got == [Request(user, items, line) for line, (user, items) in enumerate(expected, 2)]


@settings(deadline=None)
@given(st.binary(max_size=80) | st.text("{}[]\":,\\ 01\n'au").map(str.encode))
def test_no_bytes_make_a_reader_fail_other_than_by_a_history_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("history")
    header = b"user_id,history_item_id\n"
    for name, before in (("h.jsonl", b""), ("h.inter.json", b""), ("h.txt", b""), ("h.csv", b""), ("h.csv", header)):
        try:
            outcomes = read(folder, name, before + content)
        except HistoryError:
            continue
        assert all(isinstance(o, Reject) or (isinstance(o.user, str) and o.items) for o in outcomes)


def test_reading_is_lazy(tmp_path):
    class Endless(io.RawIOBase):
        lines = itertools.count()

        def readline(self, size=-1):
            return b'{"user": %d, "items": [1]}\n' % next(self.lines)

    stream = read_histories([Path("-")], stdin=Endless())
    assert [next(stream).user for _ in range(3)] == ["0", "1", "2"]


# --- LC-Rec


def test_lcrec(tmp_path):
    content = b'\xef\xbb\xbf{"0": [11, 4],\r\n  "u1": ["a"], "2": [], "3": 7,\n\n"0": [\n5],\n"4": [1]}\n'
    first, second, empty, wrong, again, last = read(tmp_path, "Games.inter.json", content)
    assert (first, second) == (Request("0", ("11", "4"), 1), Request("u1", ("a",), 2))
    source = tmp_path / "Games.inter.json"
    assert rejected(empty, 2, "the history of user 2 is empty", '"2": []', source)
    assert rejected(wrong, 2, "Expected `array`, got `int`", '"3": 7', source)
    assert rejected(again, 4, "the user '0' is there already, on line 1", '"0": [\n5]', source)
    assert last == Request("4", ("1",), 6)
    assert read(tmp_path, "Games.inter.json", b" { } ") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", r"h.inter.json, line 1, column 1: got '\[' instead of '\{'"),
        (b"", "got the end of the file instead of '{'"),
        (b'{"0": [1],\n"1": [2', "h.inter.json, line 2"),
        (b'{"0": [1] "1": [2]}', "got '\"' instead of ',' or '}'"),
        (b'{"0": [1],}', "instead of '\"'"),
        (b"{0: [1]}", "got '0' instead of '\"'"),
        (b'{"0" [1]}', "instead of ':'"),
        (b'{"0": [1]}\n{"1": [2]}', "line 2, column 1: got more text after the object.*--format jsonl"),
        (b'{"0": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_not_lcrec_is_refused(tmp_path, content, message):
    with pytest.raises(HistoryError, match=message):
        read(tmp_path, "h.inter.json", content)


def test_lcrec_half_a_surrogate_pair_is_rejected(tmp_path):
    (bad,) = read(tmp_path, "h.inter.json", b'{"\\ud800": [1]}')
    assert rejected(bad, 1, "surrogate", '"\\ud800": [1]', tmp_path / "h.inter.json")


# --- AtSpeed


def test_atspeed(tmp_path):
    content = b"1 1955 28\n\nu2\t3\r\n3\n1 007"
    first, second, empty, again = read(tmp_path, "sequential_train.txt", content, item_base=1)
    assert (first, second) == (Request("1", ("1954", "27"), 1), Request("u2", ("2",), 3))
    assert again == Request("1", ("6",), 5)
    assert rejected(empty, 4, "the history of user 3 is empty", "3", tmp_path / "sequential_train.txt")
    assert read(tmp_path, "x.txt", b"1 1955 28")[0].items == ("1955", "28")


@pytest.mark.parametrize("item", ["0", "-3", "x", "1.5", "1_0", "\u0661", "9" * 30])
def test_a_bad_atspeed_item_is_rejected(tmp_path, item):
    outcomes = read(tmp_path, "h.txt", f"1 2 {item} 3\n2 5\n".encode(), item_base=1)
    assert rejected(outcomes[0], 1, f"got the item {item!r}", f"1 2 {item} 3", tmp_path / "h.txt")
    assert outcomes[1:] == [Request("2", ("4",), 2)]


def test_atspeed_bad_utf8_is_rejected(tmp_path):
    outcomes = read(tmp_path, "h.txt", b"\xff 2\n1 2\n")
    assert rejected(outcomes[0], 1, "not UTF-8", "\\xff 2", tmp_path / "h.txt")
    assert outcomes[1:] == [Request("1", ("2",), 2)]


def test_atspeed_files_are_joined_per_user(tmp_path):
    train, valid = tmp_path / "sequential_train.txt", tmp_path / "sequential_valid.txt"
    train.write_text("1 10 11\n2\n3\n4 40\n")
    valid.write_text("5 50\n4 x\n2 20\n1 12\n3\n")
    bad, first, second, empty, *last = unsourced(read_histories([train, valid]))
    assert rejected(bad, 2, "got the item 'x'", "4 x", valid)
    assert (first, second) == (Request("1", ("10", "11", "12"), 1), Request("2", ("20",), 2))
    assert rejected(empty, 3, "the history of user 3 is empty", "3", train)
    assert last == [Request("4", ("40",), 4), Request("5", ("50",), 1)]


# --- MiniOneRec

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


# --- Parquet


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


# --- which file, which format


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


# --- the real files


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
