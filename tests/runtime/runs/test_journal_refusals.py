"""Journals of other runs, edited ones, and names that are taken."""

import contextvars
from pathlib import Path

import msgspec
import pytest

from journal_cases import Calls, Killed, Task, entries, facts, interrupted, made, run
from specbeam.catalog.errors import OutputTakenError, SpecBeamError
from specbeam.runtime.runs.inference import check_outputs
from specbeam.runtime.runs.journal import Journal
from specbeam.runtime.runs.log import JournalFiles, completed, may_replace, output_kept_in, sealed_line
from specbeam.runtime.runs.windows import HopelessError, Outcomes, PipeSink, serve


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
