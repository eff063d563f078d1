"""Runs that are interrupted, anywhere and however: what was done is kept, and the end is that of a run in one go."""

import contextvars
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specbeam.catalog.errors import OutputTakenError, SpecBeamError
from specbeam.catalog.records import Reject, RejectLine
from specbeam.runtime.runs import journal as journal_module
from specbeam.runtime.runs.inference import check_outputs
from specbeam.runtime.runs.journal import Journal, _File
from specbeam.runtime.runs.log import JournalFiles, RunFacts, completed, may_replace, output_kept_in, sealed_line
from specbeam.runtime.runs.windows import Ending, HopelessError, Job, Outcomes, PipeSink, Stop, serve
from specbeam.runtime.types import RequestFailure

BATCH = 3


class Line(msgspec.Struct):
    number: int
    batch: list[int]  # the entries that shared it


class Task(Job[int, int, Line, Outcomes]):
    """An entry's line tells whom it shared a batch with: entries of one length, which is the last digit."""

    ahead = 4 * BATCH

    def __init__(self, broken: frozenset[int] = frozenset(), stopping: int | None = None) -> None:
        """stopping: after so many batches somebody asks for the end."""
        self.asked: list[int] = []
        self.stop = Stop()
        self._broken, self._stopping = broken, stopping

    def counts(self) -> Outcomes:
        return Outcomes()

    def encode(self, entry: int | Reject, counts: Outcomes) -> int | Reject:
        odd = isinstance(entry, int) and entry % 7 == 3
        return Reject(entry, "odd", str(entry), "numbers") if odd else entry

    def batches(self, requests: list[int]) -> Iterator[dict[int, Line | RequestFailure]]:
        order = np.argsort([entry % 10 for entry in requests], kind="stable").tolist()
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            self.asked += [requests[place] for place in chosen]
            shared = [requests[place] for place in chosen]
            if self._stopping is not None and len(self.asked) >= BATCH * self._stopping:
                self.stop.ask()
            yield {
                place: RequestFailure(place, None, "e", "NaN")
                if requests[place] in self._broken
                else Line(requests[place], shared)
                for place in chosen
            }

    def line(self, entry: int, answer: Line, counts: Outcomes) -> Line:
        return answer

    def failed(self, entry: int, reason: str) -> RejectLine:
        return RejectLine("numbers", entry, reason, str(entry))


def facts(**changes: Any) -> RunFacts:
    told: dict[str, Any] = {"verb": "count", "bundle": "b", "engine": "e", "read": {"input": "i"}, "options": {"k": 3}}
    return RunFacts(**(told | changes))


def entries(number: int) -> list[int | Reject]:
    return [Reject(n, "no number", "x", "numbers") if n % 11 == 5 else n for n in range(number)]


def run(
    output: Path, number: int = 100, *, job: Task | None = None, overwrite: bool = False,
    told: list[str] | None = None, **changes: Any,
) -> tuple[Ending, Outcomes]:  # fmt: skip
    """One process's share of a run."""
    warn = (lambda message: None) if told is None else told.append
    with Journal.open(output, facts(**changes), Outcomes(), overwrite=overwrite, warn=warn) as journal:
        ending: Ending = "end"
        assert len(list(journal.results())) == journal.counts.served  # wherever they are by now
        if not journal.complete:
            job = job or Task()
            ending = serve(job, entries(number), journal, stop=job.stop)
        if ending != "stopped":
            journal.finish(output.with_name("rejects"))
        return ending, journal.counts


def made(output: Path) -> tuple[bytes, bytes]:
    return output.read_bytes(), output.with_name("rejects").read_bytes()


@pytest.fixture
def whole(tmp_path: Path) -> tuple[bytes, bytes]:
    """What a run in one go makes."""
    (tmp_path / "whole").mkdir()
    assert run(tmp_path / "whole/out")[0] == "end"
    return made(tmp_path / "whole/out")


class Killed(BaseException):
    """The process ends in the middle of a call of the system."""


class Calls:
    """Counts the calls that change files, and ends the process in one of them, which is then done in part."""

    def __init__(self, patched: pytest.MonkeyPatch, last: int | None = None, share: float = 0.0) -> None:
        self.number, self._last, self._share = 0, last, share
        for owner, name in ((_File, "write"), (_File, "cut"), (journal_module, "place_file"), (Path, "unlink")):
            patched.setattr(owner, name, self._counted(name, getattr(owner, name)))

    def _counted(self, name: str, real: Any) -> Any:
        def called(*arguments: Any, **options: Any) -> Any:
            if name == "unlink" and ".partial" not in arguments[0].name:
                return real(*arguments, **options)
            self.number += 1
            if self.number == self._last:
                if name == "write":
                    file, data, start = arguments
                    real(file, data[: int(self._share * len(data))], start)
                raise Killed
            return real(*arguments, **options)

        return called


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


def interrupted(out: Path, monkeypatch: pytest.MonkeyPatch) -> JournalFiles:
    """A run of which two windows are on the disk, and some batches of the third."""
    with monkeypatch.context() as patched:
        patched.setattr(journal_module, "SYNC_SECONDS", 0.0)
        assert run(out, job=Task(stopping=9))[0] == "stopped"
    return JournalFiles.of(out)


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


def test_other_runs_are_refused(tmp_path: Path, whole: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    interrupted(out, monkeypatch)
    for changes, told in (
        ({"verb": "other"}, "differs in: verb"),
        ({"bundle": "c"}, "differs in: bundle"),
        ({"engine": "c"}, "differs in: engine"),
        ({"read": {"input": "j"}}, "differs in: what is read: input"),
        ({"read": {}}, "differs in: what is read: input"),
        ({"options": {"k": 4, "new": None}}, r"differs in: k \(3, now 4\)"),
        ({"read": {"input": None}}, "come through a pipe, which cannot be read twice"),
    ):
        with pytest.raises(SpecBeamError, match=told):
            run(out, **changes)
    run(out)
    assert made(out) == whole


def test_what_is_not_of_a_run_is_never_replaced(tmp_path: Path) -> None:
    paths = JournalFiles.of(tmp_path / "out")
    for path in paths:
        path.write_bytes(b"precious\n")
        for overwrite in (False, True):
            with pytest.raises(SpecBeamError, match="does not say which run"):
                run(tmp_path / "out", overwrite=overwrite)
        assert path.read_bytes() == b"precious\n"
        path.unlink()


def test_a_log_that_was_edited_is_refused(
    tmp_path: Path, whole: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    log = interrupted(out, monkeypatch).log
    before = log.read_bytes()
    lines = before.splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], lines[1].replace(b'"entries":12', b'"entries":11'), *lines[2:]]))
    with pytest.raises(SpecBeamError, match=r"out.partial.log, line 2, is damaged, or was edited"):
        run(out)
    log.write_bytes(before)  # nothing was lost
    run(out)
    assert made(out) == whole


def test_batches_that_a_mark_did_not_quite_replace_are_left_out(tmp_path: Path, whole: tuple[bytes, bytes]) -> None:
    """Where a process ended between a mark and the cut behind it, batches of the window may stand there, whole."""
    out = tmp_path / "out"
    run(out, job=Task(stopping=4))
    paths = JournalFiles.of(out)
    lines = paths.log.read_bytes().splitlines(keepends=True)
    assert any(b'"mark"' in line for line in lines)
    stale = msgspec.json.encode({"type": "batch", "lines": [[0, False, {"number": 0}]], "counts": {"served": 1}})
    paths.log.write_bytes(b"".join([*lines, b"half a line\n"[5:], sealed_line(stale)]))
    run(out)
    assert made(out) == whole


def test_a_finished_run_whose_output_is_gone_is_made_again(
    tmp_path: Path, whole: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ended after the results had their name, before the log was gone."""

    with monkeypatch.context() as patched:
        calls = Calls(patched)
        run(tmp_path / "count/out")

    def ended(output: Path) -> None:
        with monkeypatch.context() as patched:
            Calls(patched, calls.number - 2)  # three names are removed, the results' own first
            with pytest.raises(Killed):
                run(output)

    for name, after in (("same", None), ("gone", "gone"), ("other", "other")):
        out = tmp_path / name / "out"
        ended(out)
        assert completed(out)
        JournalFiles.of(out).results.unlink(missing_ok=True)
        if after == "gone":
            out.unlink(missing_ok=True)
        if after == "other":
            out.write_bytes(whole[0].replace(b"1", b"2", 1))
            with pytest.raises(SpecBeamError, match=r"was edited|is not what the interrupted run made"):
                run(out)
            continue
        run(out)
        assert made(out) == whole
        assert sorted(path.name for path in out.parent.iterdir()) == ["out", "rejects"]


def test_the_files_of_a_run_are_no_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    for path in interrupted(out, monkeypatch):
        assert output_kept_in(path) == out
        with pytest.raises(SpecBeamError, match=r"is where the interrupted run of .*out keeps its lines"):
            check_outputs(path, None, [], overwrite=True)
    assert output_kept_in(tmp_path / "x.partial") is None


def test_overwrite_begins_anew(tmp_path: Path, whole: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    interrupted(out, monkeypatch)
    job = Task()
    run(out, overwrite=True, job=job, options={"k": 5})
    assert made(out) == whole
    assert len(job.asked) == whole[0].count(b"\n")
    assert run(out, 12, overwrite=True)[1].served < 12  # over an output that is there


def test_one_that_may_replace_an_output_still_may_when_it_goes_on(tmp_path: Path, whole: tuple[bytes, bytes]) -> None:
    out = tmp_path / "out"
    out.write_text("old")
    assert not may_replace(out)
    assert run(out, job=Task(stopping=9), overwrite=True)[0] == "stopped"
    assert may_replace(out)
    job = Task()
    run(out, job=job)
    assert made(out) == whole
    assert 0 < len(job.asked) < whole[0].count(b"\n")


def test_names_that_were_taken_meanwhile(tmp_path: Path, whole: tuple[bytes, bytes]) -> None:
    out, rejects = tmp_path / "out", tmp_path / "rejects"
    out.write_text("precious")
    rejects.write_text("precious")
    with pytest.raises(OutputTakenError, match=r"out\.kept-1"):
        run(out)
    assert (tmp_path / "out.kept-1").read_bytes(), (tmp_path / "rejects.kept-1").read_bytes() == whole
    assert {path.read_text() for path in (out, rejects)} == {"precious"}
    assert len(list(tmp_path.iterdir())) == 5  # with the folder of `whole`


def test_two_runs_of_one_output(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "out", facts(), Outcomes(), overwrite=False, warn=print):
        other = contextvars.Context()  # as another thread has it
        with pytest.raises(SpecBeamError, match="is being written by another run"):
            other.run(run, tmp_path / "out")


def test_batches_without_numbers(tmp_path: Path, whole: tuple[bytes, bytes]) -> None:
    broken = frozenset(range(24, 200))
    with pytest.raises(HopelessError, match=r"Stopped, because whole batches failed: \d+ requests in succession"):
        run(tmp_path / "out", job=Task(broken))
    assert not (tmp_path / "out").exists()
    assert not completed(tmp_path / "out")
    run(tmp_path / "out")  # the engine does better now
    assert made(tmp_path / "out") == whole


def test_memory_does_not_grow_with_the_lines(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "out", facts(), Outcomes(), overwrite=False, warn=print) as journal:
        serve(Task(), entries(3000), journal)
        assert not journal._window
        log = JournalFiles.of(tmp_path / "out").log.stat().st_size
        assert log < 300 * (3000 / Task.ahead + 2)  # a mark a window
        assert len(list(journal.results())) == journal.counts.served


def test_pipes_get_the_order_of_the_input(whole: tuple[bytes, bytes]) -> None:
    results, rejects = list[msgspec.Struct](), list[msgspec.Struct]()
    sink = PipeSink(Outcomes(), results.append, rejects.append)
    assert serve(Task(), entries(100), sink) == "end"
    for lines, expected in ((results, whole[0]), (rejects, whole[1])):
        assert b"".join(msgspec.json.encode(line) + b"\n" for line in lines) == expected
