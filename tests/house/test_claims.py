"""Outputs are claimed, and what a killed writer left is swept."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from commands import lines, user, write
from output_cases import PRECIOUS, SPECBEAM, names
from specbeam.catalog.claims import claim
from specbeam.catalog.errors import OutputTakenError, SpecBeamError
from specbeam.catalog.files import whole_directory, whole_file
from specbeam.catalog.temporaries import temporary_directory
from tiny_bundle import Tiny


def test_four_runs_into_one_output(tiny: Tiny, tmp_path: Path, output: Path) -> None:
    histories = write(tmp_path / "h.jsonl", *(user(i, i % 40, (i * 7) % 40) for i in range(400)))
    command = [*SPECBEAM, "infer", tiny.bundle, histories, "-o", output, "--threads", "1"]
    runs = [subprocess.Popen(list(map(str, command)), stdout=-1, stderr=-1) for _ in range(4)]
    told = [run.communicate(timeout=300)[1].decode() for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 1, 1, 1]
    refused = [err for run, err in zip(runs, told, strict=True) if run.returncode]
    assert all("being written by another run" in err or "exists already" in err for err in refused), refused
    assert len(lines(output)) == 400
    assert names(tmp_path) == ["h.jsonl", "recs.jsonl"]


def test_a_claimed_output_is_refused_to_another_thread_but_not_to_its_holder(tmp_path: Path) -> None:
    path, told = tmp_path / "out", []

    def other() -> None:
        try:
            with claim(path):
                told.append("claimed")
        except SpecBeamError as error:
            told.append(str(error))

    with claim(path), claim(path), whole_directory(path, kind="kind") as part:
        (part / "kind").touch()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert told == [f"{path} is being written by another run. Wait for it, or choose another output."]
    assert names(tmp_path) == ["out"]
    with claim(path):
        assert names(tmp_path) == [".out.specbeam-lock", "out"]
    assert names(tmp_path) == ["out"]


def test_where_there_are_no_locks_nothing_is_held_and_nothing_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(handle: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuses)
    litter = tmp_path / ".out.0123abcd.specbeam-part"
    litter.touch()
    with claim(tmp_path / "out"), whole_directory(tmp_path / "out", kind="kind") as part:
        (part / "kind").touch()
    assert names(tmp_path) == [litter.name, "out"]


WRITER = """
import sys, time
from pathlib import Path
from specbeam.catalog.claims import claim
from specbeam.catalog.files import whole_directory, whole_file
from specbeam.catalog.temporaries import temporary_directory
folder = Path(sys.argv[1])
with (
    claim(folder / "file"), whole_file(folder / "file", replace=True) as file,
    whole_directory(folder / "folder", kind="kind") as part, temporary_directory(folder / "folder") as scratch,
):
    file.write(b"half"); file.flush(); (part / "kind").touch(); (scratch / "graph").touch()
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_needs_is_not(tmp_path: Path) -> None:
    killed, living = (
        subprocess.Popen([sys.executable, "-c", WRITER, folder], stdout=-1)
        for folder in (tmp_path, tmp_path / "living")
    )
    for process in (killed, living):
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
    killed.kill()
    killed.communicate()
    for left in (tmp_path / "living").iterdir():  # a living one's, beside the dead one's
        if left.name.endswith("-part"):
            os.rename(left, tmp_path / left.name)
    assert len(names(tmp_path)) == 9  # three temporaries and two locks, the other's folder and temporaries
    with whole_file(tmp_path / "file", replace=False), whole_directory(tmp_path / "folder", kind="kind") as part:
        (part / "kind").touch()
    parts = [name for name in names(tmp_path) if name.endswith("-part")]
    assert len(parts) == 3
    living.send_signal(signal.SIGKILL)
    living.communicate()
    with claim(tmp_path / "file", tmp_path / "folder"):
        pass
    assert names(tmp_path) == ["file", "folder", "living"]


def test_what_was_moved_aside_by_one_that_was_killed_is_put_back(tmp_path: Path) -> None:
    aside = tmp_path / ".bundle.0123abcd.specbeam-old" / "bundle"
    aside.mkdir(parents=True)
    (aside / "kind").write_bytes(PRECIOUS)
    with pytest.raises(SpecBeamError, match="exists already"), whole_directory(tmp_path / "bundle", kind="kind"):
        pass
    assert (tmp_path / "bundle" / "kind").read_bytes() == PRECIOUS
    assert names(tmp_path) == ["bundle"]


def test_what_only_looks_like_ours_is_left_alone(tmp_path: Path) -> None:
    others = [".out.0123abcd.part", ".out.specbeam-part", ".out.0123abcd.specbeam-partial", "out.0123abcd.specbeam-old"]
    for name in others:
        (tmp_path / name).touch()
    with whole_file(tmp_path / "out", replace=False):
        pass
    assert names(tmp_path) == sorted([*others, "out"])


def test_the_umask_is_applied_without_being_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", lambda mask: pytest.fail("the umask is the process's"))
            with whole_file(tmp_path / "file", replace=False):
                pass
            with whole_directory(tmp_path / "folder", kind="kind") as part:
                (part / "kind").touch()
                os.chmod(part / "kind", 0o600)
            with temporary_directory(tmp_path / "scratch"):
                pass
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder", "folder/kind")]
    assert modes == [0o640, 0o750, 0o640]


def test_a_folder_that_took_a_file_s_name_costs_no_work(tmp_path: Path) -> None:
    path = tmp_path / "out"

    def late() -> None:
        with whole_file(path, replace=True) as file:
            file.write(b"work")
            path.mkdir()

    with pytest.raises(OutputTakenError, match=r"kept in .*out\.kept-1"):
        late()
    assert (tmp_path / "out.kept-1").read_bytes() == b"work"


@pytest.mark.parametrize("replace", [False, True])
def test_what_was_checked_before_a_long_work_is_kept_when_it_is_done(tmp_path: Path, replace: bool) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "thesis").write_bytes(PRECIOUS)

    def written() -> None:
        with whole_directory(path, kind="kind", replace=replace, late=True) as part:
            (part / "kind").write_bytes(b"work")

    with pytest.raises(OutputTakenError, match="kept in"):
        written()
    assert (path / "thesis").read_bytes() == PRECIOUS
    assert (tmp_path / "out.kept-1" / "kind").read_bytes() == b"work"
