"""History files: every format, real and damaged."""

import io
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history_cases import Request, read, rejected, unsourced
from specbeam.catalog import Reject, read_histories
from specbeam.catalog.errors import HistoryError


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
