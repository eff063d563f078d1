"""Readers hold a little of a file at a time: the same outcomes whatever they hold, and memory that stays."""

import io
import json
import os
import subprocess
import sys
from contextlib import suppress
from itertools import islice

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from specbeam.catalog import HistoryRequest, Reject, read_histories
from specbeam.catalog.errors import DiskFullError, HistoryError
from specbeam.catalog.histories import formats as formats_module
from specbeam.catalog.histories import spill as spill_module
from specbeam.catalog.histories.formats import read_atspeed, read_lcrec
from specbeam.catalog.histories.members import LONG, members
from specbeam.catalog.histories.spill import Seen, database

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
pairs = st.lists(st.tuples(st.text(max_size=8), values), max_size=8)


def pieces(content, read, longest=1 << 20):
    """What `members` makes of a text, or its error."""
    got = []
    with suppress(HistoryError):
        got.extend(members("h", io.BytesIO(content), longest=longest, read=read))
        return got, ""
    try:
        for _ in members("h", io.BytesIO(content), longest=longest, read=read):
            pass
    except HistoryError as error:
        return got, str(error)


def written(entries, ascii_only, space):
    inside = [f"{json.dumps(k, ensure_ascii=ascii_only)}{space}:{space}{json.dumps(v, ensure_ascii=ascii_only)}"
              for k, v in entries]  # fmt: skip
    return inside, f"{space}{{{space}{(space + ',' + space).join(inside)}{space}}}{space}".encode()


@given(pairs, st.booleans(), st.sampled_from(["", " ", "\n", "\r\n  "]), st.integers(1, 40))
def test_members_are_those_of_json_whatever_is_read_at_a_time(entries, ascii_only, space, read):
    inside, content = written(entries, ascii_only, space)
    got, fault = pieces(content, read)
    assert fault == ""
    assert [(member.key, member.value) for member in got] == entries
    assert [member.raw for member in got] == inside
    text, place = content.decode(), 0
    for member in got:
        place = text.index(member.raw, place)
        assert member.line == text.count("\n", 0, place) + 1
        place += len(member.raw)


@given(pairs, st.data(), st.integers(1, 40))
def test_damage_is_found_at_the_same_place_whatever_is_read_at_a_time(entries, data, read):
    _, content = written(entries, data.draw(st.booleans()), "\n ")
    place = data.draw(st.integers(0, len(content)))
    put = data.draw(st.sampled_from([b"", b'"', b"\\", b"]", b"}", b"\xff", b"\xc3", b"[" * 3000, b"9" * 5000, b"\n"]))
    damaged = content[:place] + put + content[place + data.draw(st.integers(0, 3)) :]
    assert repr(pieces(damaged, read)) == repr(pieces(damaged, 1 << 20))


@given(st.binary(max_size=60) | st.text("{}[]\":,\\ 01\n'au\ufeff\U0001f600").map(str.encode))
def test_any_bytes_are_read_the_same_whatever_is_read_at_a_time(content):
    whole = repr(pieces(b'{"a": [1],\n' + content, 1 << 20))
    assert {repr(pieces(b'{"a": [1],\n' + content, read)) for read in (1, 2, 3, 7)} == {whole}


@given(pairs, st.integers(1, 40), st.integers(1, 60))
@example([("", []), ("\u02cc", 3.0543799961105536e16)], 1, 31)  # as long as it may be
def test_a_long_member_is_not_held_and_the_others_are_read(entries, read, longest):
    inside, content = written(entries, False, " ")
    got, fault = pieces(content, read, longest)
    assert fault == ""
    assert len(got) == len(entries)
    for (key, value), raw, member in zip(entries, inside, got, strict=True):
        if len(raw.encode()) > longest:
            assert member.value is LONG
            assert raw.startswith(member.raw[: longest // 4])
        else:
            assert (member.key, member.value, member.raw) == (key, value, raw)


def test_a_long_entry_without_an_end_is_told_where_it_begins():
    for content, why in (
        (b'{"1": [2],\n "3": [' + b"4, " * 500, r"line 2, column 2: too long to be held, and never closed"),
        (b'{"1": [2],\n "3": [' + b"4, " * 500 + b"}", r"line 2, column 1508: too long to be held, and closed by '}'"),
    ):
        assert why in pieces(content, 64, 100)[1]


users = st.text(st.characters(exclude_categories=["Cs"]), max_size=3) | st.integers(0, 30).map(str)


@given(st.lists(users, max_size=60), st.integers(0, 5), st.integers(1, 4))
def test_a_user_that_was_there_is_told_wherever_it_is_kept(given_users, held, batch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill_module, "HELD", held)
        patch.setattr(spill_module, "BATCH", batch)
        with database() as connection:
            seen, expected = Seen(connection), dict[str, int]()
            for line, user in enumerate(given_users, 1):
                assert seen.first(user, line) == expected.get(user)
                expected.setdefault(user, line)


def test_lcrec_users_that_are_kept_on_disk_are_refused_again(monkeypatch):
    monkeypatch.setattr(spill_module, "HELD", 1)
    names = ["7", "9", "8", "u", "\\ud800", "07", "9", "8", "u", "\\ud800", "7"]
    content = "{" + ",\n".join(f'"{name}": [1]' for name in names) + "}"
    outcomes = list(read_lcrec("h", io.BytesIO(content.encode())))
    assert [outcome.user for outcome in outcomes if isinstance(outcome, HistoryRequest)] == ["7", "9", "8", "u", "07"]
    assert [(o.line, o.reason.partition(" line ")[2][:2]) for o in outcomes[6:]] == [
        (7, "2;"), (8, "3;"), (9, "4;"), (10, "5;"), (11, "1;"),
    ]  # fmt: skip


lines = st.lists(
    st.tuples(users.filter(lambda user: user.split() == [user]), st.lists(st.integers(-1, 20))), max_size=12
)


@given(st.lists(lines, min_size=2, max_size=3))
def test_atspeed_files_are_joined_as_in_a_dictionary(contents):
    files, expected, bad = [], dict[str, tuple[int, str, list[str]]](), 0
    for number, content in enumerate(contents):
        text = "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in content)
        files.append((f"{number}", io.BytesIO(text.encode())))
        for line, (user, items) in enumerate(content, 1):
            if -1 in items:
                bad += 1
            else:
                expected.setdefault(user, (line, f"{number}", []))[2].extend(map(str, items))
    *got, = read_atspeed(files, 0)  # fmt: skip
    assert all(isinstance(outcome, Reject) for outcome in got[:bad])
    joined = [(o.line, o.source, o.user, o.items) for o in got[bad:] if isinstance(o, HistoryRequest)]
    assert joined == [(line, name, user, tuple(i)) for user, (line, name, i) in expected.items() if i]
    empty = [(o.line, o.source, o.raw) for o in got[bad:] if isinstance(o, Reject)]
    assert empty == [(line, name, f"{user} ") for user, (line, name, i) in expected.items() if not i]


def test_no_room_for_temporary_files_is_told_as_such(monkeypatch):
    monkeypatch.setattr(spill_module, "HELD", 0)

    def fill():
        with database() as connection:
            connection.execute("PRAGMA max_page_count = 5")
            seen = Seen(connection)
            for number in range(1 << 17):
                seen.first(f"{number:030}", 1)

    with pytest.raises(DiskFullError, match=r"temporary files.*TMPDIR"):
        fill()


@pytest.mark.parametrize("long", ["B," + "77," * 3000, "B" + ',"\n"' * 3000])
def test_a_csv_record_that_is_too_long_is_rejected_and_not_held(tmp_path, monkeypatch, long):
    monkeypatch.setattr(formats_module, "LONGEST", 1 << 12)
    path = tmp_path / "h.csv"
    path.write_text(f'user_id,history_item_id\nA,[1]\n{long}\nD,"\nC,[2]\n')
    first, bad, *_, last = read_histories([path])
    assert (first.user, bad.line) == ("A", 3)
    assert bad.reason.startswith("not a CSV row: longer than")
    assert len(bad.raw) < 1100
    assert bad.raw.startswith(long[:500])
    if "\n" not in long:
        assert last.line == 4


def test_reading_lcrec_begins_before_all_is_there():
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            return (b"{" if not self.began else b"") + self.entries()

        began = 0

        def entries(self):
            self.began += 1
            return b"".join(b'"%d.%d": [1],' % (self.began, i) for i in range(100))

    outcomes = islice(read_lcrec("h", Endless()), 1000)
    assert [outcome.items for outcome in outcomes] == [("1",)] * 1000


MEASURE = """
import sys
from pathlib import Path
from specbeam.catalog import read_histories
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
for _ in read_histories([Path(sys.argv[1])]):
    pass
before = peak()
kinds = [type(outcome).__name__ for outcome in read_histories([Path(sys.argv[2])])]
print(len(kinds), kinds.count("Reject"), peak() - before)
"""
ENTRY = "12345, " * 7_200_000 + "1"  # 50 MB
HUGE = {
    "jsonl": '{"user": 1, "items": [2]}\n{"user": 2, "items": [%s]}\n{"user": 3, "items": [2]}\n',
    "inter.json": '{"1": [2],\n"2": [%s],\n"3": [2]}',
    "txt": "1 2\n2 %s\n3 2\n",
    "csv": 'user_id,history_item_id\n1,[2]\n2,"[%s]"\n3,[2]\n',
    "parquet": "",
}


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
@pytest.mark.parametrize("ending", HUGE)
def test_an_entry_of_50_mb_costs_at_most_four_times_its_size(tmp_path, ending):
    for name, entry in (("small", "2"), ("large", ENTRY)):
        path = tmp_path / f"{name}.{ending}"
        if ending == "parquet":
            pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            items = [[2], list(range(1, len(entry) // 8 + 2)), [2]]
            parquet.write_table(pyarrow.table({"user": [1, 2, 3], "items": items}), path, use_dictionary=False)
        else:
            path.write_text(HUGE[ending] % (entry.replace(",", "") if ending == "txt" else entry))
    command = [sys.executable, "-c", MEASURE, tmp_path / f"small.{ending}", tmp_path / f"large.{ending}"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    outcomes, rejects, grown = map(int, run.stdout.split())
    assert (outcomes, rejects) == (3, 1)
    assert grown <= 4 * len(ENTRY)
