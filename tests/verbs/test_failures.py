"""The command line on bad input: a message with file, place and remedy, and nothing half-written."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from commands import bad, good, lines, only, run, user, write
from specbeam.runtime.runs.journal import Journal
from tiny_bundle import Tiny


def test_nothing_is_overwritten_unasked(tiny: Tiny, histories: Path, output: Path) -> None:
    output.write_text("precious")
    assert f"{output} exists already. Choose another name or pass --overwrite" in bad(
        "infer", tiny.bundle, histories, "-o", output
    )
    assert output.read_text() == "precious"
    good("infer", tiny.bundle, histories, "-o", output, "--overwrite")
    assert len(lines(output)) == 6
    output.unlink()
    rejects = output.with_name("recs.jsonl.rejects.jsonl")
    rejects.write_text("precious")
    assert f"{rejects} exists already." in bad("infer", tiny.bundle, histories, "-o", output)
    assert rejects.read_text() == "precious"
    good("infer", tiny.bundle, histories, "-o", output, "--overwrite")
    assert not rejects.exists()  # nothing was rejected


def test_outputs_that_cannot_be_are_refused_before_any_work(tiny: Tiny, histories: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    arguments = ["infer", tiny.bundle, histories, "--overwrite", "-o"]
    assert f"{histories} is an input as well. Choose another output." in bad(*arguments, histories)
    assert f"{histories} is an input as well." in bad(*arguments, tmp_path / "x", "--rejects", histories)
    assert f"--rejects {tmp_path}/x: expected the name of a file that is not the output" in bad(
        *arguments, tmp_path / "x", "--rejects", tmp_path / "x"
    )
    assert "--rejects -: expected the name of a file" in bad(*arguments, tmp_path / "x", "--rejects", "-")
    assert f"{tmp_path} is not a regular file. Choose another name, or - for standard output." in bad(
        *arguments, tmp_path
    )
    assert "/dev/null is not a regular file." in bad(*arguments, "/dev/null")
    (tmp_path / "file").touch()
    message = bad(*arguments, tmp_path / "file/recs.jsonl")
    assert "Cannot read or write:" in message
    assert "Check the path, its permissions and the free space." in message
    (tmp_path / "file").unlink()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_a_run_that_fails_in_the_middle_keeps_what_was_done(
    tiny: Tiny, histories: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with histories.open("a") as file:
        file.write("malformed\n")
    options = ["--batch-size", 2, "--threads", 1, "--speculation", "fixed"]
    good("infer", tiny.bundle, histories, "-o", tmp_path / "whole", *options)
    keep, kept = Journal.keep, list[int]()

    def fail_at_the_third(self: Journal[Any], lines: Any, counts: Any) -> None:
        kept.append(len(lines))
        if len(kept) == 3:
            raise error
        keep(self, lines, counts)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "keep", fail_at_the_third)
        result = run("infer", tiny.bundle, histories, "-o", output, *options)
        assert (result.exit_code, len(kept)) == (1, 3)
        assert f"Not all was done: 2 requests are kept in {output}.partial. Run the same command again to go on" in (
            result.stderr
        )
        assert not output.exists()
        if isinstance(error, OSError):
            assert f" while writing {output}" in result.stderr
            assert "Free some space there" in result.stderr
        # what was there before stays
        kept.clear()
        old = tmp_path / "old"
        old.write_text("old")
        assert run("infer", tiny.bundle, histories, "-o", old, "--overwrite", *options).exit_code == 1
        assert old.read_text() == "old"
    result = good("infer", tiny.bundle, histories, "-o", output, *options)
    assert "Going on with an interrupted run: 2 served and 1 rejected are kept in" in result.stderr
    assert "2 lists are of an earlier run that was interrupted" in result.output
    for ending in ("", ".rejects.jsonl"):
        assert Path(f"{output}{ending}").read_bytes() == (tmp_path / f"whole{ending}").read_bytes()
    assert not Path(f"{output}.partial").exists()
    assert not Path(f"{output}.partial.log").exists()


def test_runs_that_do_not_go_on(tiny: Tiny, histories: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["infer", tiny.bundle, histories, "-o", output, "--threads", 1, "--batch-size", 2]
    keep = Journal.keep
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "keep", lambda self, *lines: (keep(self, *lines), (_ for _ in ()).throw(ValueError)))
        assert isinstance(run(*command).exception, ValueError)
    assert "differs in: top_k (20, now 5)" in bad(*command, "--top-k", 5)
    with histories.open("a") as file:
        file.write(json.dumps(user("new", "1")) + "\n")
    assert "differs in: what is read: histories 1" in bad(*command)
    piped = bad("infer", tiny.bundle, "-", *command[3:])
    assert "histories 1 of this one come through a pipe, which cannot be read twice" in piped
    assert f"{output}.partial: the run keeps its lines there" in bad(
        "infer", tiny.bundle, f"{output}.partial", "--format", "jsonl", *command[3:]
    )
    assert "--overwrite discards" in good(*command, "--overwrite").stderr
    assert len(lines(output)) == 7


def test_a_file_that_breaks_off_keeps_what_it_gave(tiny: Tiny, histories: Path, output: Path, tmp_path: Path) -> None:
    source = tmp_path / "users.inter.json"
    source.write_text('{"1": [1, 2],\n "2": [3, 4],\n "3": [')
    message = bad("infer", tiny.bundle, source, histories, "-o", output)
    assert f"1 of the files could not be read to the end: see the reasons in {output}.rejects.jsonl." in message
    assert f"What was read is served, in {output}." in message
    assert [line["user"] for line in lines(output)][:2] == ["1", "2"]
    assert len(lines(output)) == 2 + len(lines(histories))  # the next file is read
    (reject,) = lines(output.with_name("recs.jsonl.rejects.jsonl"))
    assert reject["reason"].startswith(f"what follows cannot be read: {source}, line 3, column")
    source.write_text('{"3": [')  # nothing has been read: nothing to keep
    message = bad("infer", tiny.bundle, source, histories, "-o", output, "--overwrite")
    assert f"Error: {source}, line 1, column" in message
    assert "Is the file complete?" in message


def test_requests_that_allow_nothing_known_are_warned_of(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    unknown, some = {**user("a", "1"), "allow": ["x", "y"]}, {**user("b", "1"), "allow": ["1", "x"], "deny": ["z"]}
    nothing = {**user("c", "1"), "allow": []}  # which is what it says
    source = write(tmp_path / "histories.jsonl", unknown, some, nothing)
    result = run("infer", tiny.bundle, source, "-o", output)
    assert result.exit_code == 0
    assert [(line["user"], len(line["items"])) for line in lines(output)] == [("a", 0), ("b", 1), ("c", 0)]
    assert f"{source}, line 1: the catalog has none of the 2 items that user a allows (e.g. 'x')" in result.stderr
    assert result.stderr.count("the catalog has none") == 1
    assert "4 items of requests' own allow and deny lists are not in the catalog" in result.stdout


def test_no_request_can_be_served(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "histories.jsonl", "{", user("a", "x"))
    message = bad("infer", tiny.bundle, source, "-o", output)
    assert f"No request could be served: see the reasons in {output}.rejects.jsonl." in message
    assert [reject["line"] for reject in lines(output.with_name("recs.jsonl.rejects.jsonl"))] == [1, 2]
    empty = write(tmp_path / "empty.jsonl")
    message = bad("infer", tiny.bundle, empty, "-o", tmp_path / "other.jsonl")
    assert f"{empty}: no request in it. Expected at least one history." in message


def test_history_files_that_cannot_be_read(tiny: Tiny, histories: Path, output: Path, tmp_path: Path) -> None:
    def message(*arguments: object) -> str:
        text = bad("infer", tiny.bundle, *arguments, "-o", output)
        only(output)
        return text

    assert f"{tmp_path}/absent.jsonl: does not exist; expected a history file. Check the path." in message(
        histories, tmp_path / "absent.jsonl"
    )
    assert f"{tmp_path}: is a directory" in message(tmp_path, "--format", "jsonl")
    (tmp_path / "x.dat").write_text("1 2 3")
    assert f"{tmp_path}/x.dat: the name does not tell the format. Pass --format with one of: jsonl" in message(
        tmp_path / "x.dat"
    )
    assert f"an item base of 1 is for AtSpeed files only; got {histories}. Leave it out." in message(
        histories, "--item-base", 1
    )
    (tmp_path / "x.csv").write_text("user,items\n1,2\n")
    assert "x.csv, line 1: got the columns ['user', 'items']; expected user_id and history_item_id" in message(
        tmp_path / "x.csv"
    )
    (tmp_path / "wide.jsonl").write_text('{"user": "1", "items": ["1"]}', encoding="utf-16")
    assert "wide.jsonl: the file is UTF-16; expected UTF-8. Save it as UTF-8." in message(tmp_path / "wide.jsonl")
