"""Runs that are interrupted, anywhere and however: what was done is kept, and the end is that of a run in one go."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal_cases import AheadTask, Calls, Killed, Task, interrupted, made, run
from specbeam.catalog.errors import SpecBeamError
from specbeam.runtime.runs.log import JournalFiles
from specbeam.runtime.runs.windows import HopelessError


def test_a_run_in_one_go(tmp_path: Path, whole: tuple[bytes, bytes]) -> None:
    results, rejects = ([json.loads(line) for line in data.splitlines()] for data in whole)
    expected = [n for n in range(100) if n % 7 != 3 and n % 11 != 5]
    assert [line["number"] for line in results] == expected
    assert [line["line"] for line in rejects] == [n for n in range(100) if n not in expected]
    assert os.listdir(tmp_path / "whole") in (["out", "rejects"], ["rejects", "out"])


def test_a_process_may_end_in_any_call(
    tmp_path: Path, whole: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        calls = Calls(patched)
        run(tmp_path / "count/out")
        total = calls.number
    assert total > 80
    for last in range(1, total + 1):
        folder = tmp_path / f"at-{last}"
        with monkeypatch.context() as patched:
            Calls(patched, last, share=(last % 5) / 4)
            with pytest.raises(Killed):
                run(folder / "out")
        job = Task()
        ending, counts = run(folder / "out", job=job, overwrite=False)
        assert (ending, made(folder / "out")) == ("end", whole), last
        assert sorted(os.listdir(folder)) == ["out", "rejects"]
        assert (counts.served, counts.rejected) == (whole[0].count(b"\n"), whole[1].count(b"\n"))
        assert len(job.asked) == len(set(job.asked))


@settings(max_examples=60)
@given(
    number=st.integers(0, 120), broken=st.frozensets(st.integers(0, 119), max_size=6),
    ends=st.lists(st.tuples(st.integers(1, 60), st.floats(0, 1)), max_size=8),
)  # fmt: skip
def test_a_process_may_end_many_times(
    tmp_path_factory: pytest.TempPathFactory, number: int, broken: frozenset[int], ends: list[tuple[int, float]]
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    _, expected = run(folder / "whole", number, job=Task(broken))
    results = (folder / "whole").read_bytes() if expected.served else b""
    rejects = (folder / "rejects").read_bytes() if expected.rejected + expected.failed else b""
    (folder / "rejects").unlink(missing_ok=True)
    for last, share in [*ends, (10_000, 0.0)]:
        with pytest.MonkeyPatch.context() as patched, suppress(Killed):
            Calls(patched, last, share)
            ending, counts = run(folder / "out", number, job=Task(broken))
            break
    assert (ending, counts) == ("end", expected)
    assert ((folder / "out").read_bytes() if results else b"") == results
    assert ((folder / "rejects").read_bytes() if rejects else b"") == rejects
    assert not list(folder.glob("*.partial*"))


def test_a_stop_is_between_batches_and_costs_nothing(tmp_path: Path, whole: tuple[bytes, bytes]) -> None:
    asked: list[int] = []
    for _ in range(60):
        job = Task(stopping=2)
        ending, _ = run(tmp_path / "out", job=job)
        asked += job.asked
        if ending == "end":
            break
    assert made(tmp_path / "out") == whole
    assert len(asked) == len(set(asked)) == whole[0].count(b"\n")  # no entry was asked for twice


def test_what_the_disk_lost_is_made_again(tmp_path: Path, whole: tuple[bytes, bytes]) -> None:
    """A failure of the machine loses any of what was not forced to the disk, in any order."""
    out, told = tmp_path / "out", list[str]()
    assert run(out, job=Task(stopping=9))[0] == "stopped"  # nothing is synced
    partial = JournalFiles.of(out).results
    data = bytearray(partial.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    partial.write_bytes(data)
    run(out, told=told)
    assert made(out) == whole
    assert "is not whole, and is made again" in told[0]


def test_one_that_was_cut_off_is_completed(
    tmp_path: Path, whole: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for which in range(3):
        for share in (0.0, 0.3, 0.9):
            out = tmp_path / f"{which}-{share}" / "out"
            path, told = interrupted(out, monkeypatch)[which], list[str]()
            left = int(share * path.stat().st_size)
            if which == 2:  # not the line that tells what run it is
                left = max(left, len(path.read_bytes().splitlines(keepends=True)[0]))
            os.truncate(path, left)
            run(out, told=told)
            assert made(out) == whole
            assert not told or "is made again" in told[0]


def test_one_that_was_edited_is_refused(
    tmp_path: Path, whole: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for which in (0, 1):
        out = tmp_path / str(which) / "out"
        path = interrupted(out, monkeypatch)[which]
        before = path.read_bytes()
        path.write_bytes(before.replace(b"1", b"2", 1))
        with pytest.raises(SpecBeamError, match=r"was edited: the lines of entries 1 to 12 .* pass --overwrite"):
            run(out)
        path.write_bytes(before)  # nothing was lost
        run(out)
        assert made(out) == whole


@pytest.mark.parametrize("broken", [frozenset(), frozenset({16, 46, 56, 66}), frozenset(range(12, 36))])
def test_windows_that_are_read_ahead_change_nothing(tmp_path: Path, broken: frozenset[int]) -> None:
    """Wherever it is stopped; broken: entries without an answer, the last of them a whole window's."""
    (tmp_path / "whole").mkdir()
    kinds = (Task, AheadTask)
    ends = [ended(tmp_path / f"{kind.__name__}/out", kind(broken)) for kind in kinds]
    assert ends[0] == ends[1]
    for stopping in range(1, 26):
        out = tmp_path / f"{stopping}/out"
        while (found := ended(out, AheadTask(broken, stopping)))[0] == "stopped":
            stopping += 1000  # the second one goes on to the end
        assert found == ends[0]


def ended(out: Path, job: Task) -> tuple[str, bytes, bytes]:
    """How a run ended, and what it left: results and rejects, finished or not."""
    out.parent.mkdir(exist_ok=True)
    try:
        ending = run(out, job=job)[0]
    except HopelessError as error:
        ending = str(error)
    kept = JournalFiles.of(out)
    files = (out, out.with_name("rejects")) if ending == "end" else (kept.results, kept.rejects)
    return ending, *(file.read_bytes() for file in files)
