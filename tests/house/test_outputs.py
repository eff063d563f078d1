"""Outputs: claimed from a run's start to its end, never put in another's place, swept when their writer died."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import specbeam.catalog.files as files
from commands import bad, good, lines, user, write
from specbeam.catalog.claims import claim
from specbeam.catalog.errors import OutputTakenError, SpecBeamError
from specbeam.catalog.files import whole_directory, whole_file
from specbeam.catalog.temporaries import temporary_directory
from tiny_bundle import Tiny

PRECIOUS = b"three years of work\n"
SPECBEAM = [sys.executable, "-m", "specbeam.cli"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what appeared meanwhile


@pytest.mark.parametrize("replaces", ["file", "dangling link", "folder"])
def test_a_file_that_appeared_meanwhile_stays_and_the_work_is_kept(tmp_path: Path, replaces: str) -> None:
    path = tmp_path / "out"

    def late() -> None:
        with whole_file(path, replace=False) as file:
            file.write(b"work")
            if replaces == "file":
                path.write_bytes(PRECIOUS)
            elif replaces == "folder":
                path.mkdir()
            else:
                path.symlink_to(tmp_path / "nowhere")

    with pytest.raises(OutputTakenError, match=r"appeared while this ran.*kept in .*out\.kept-1"):
        late()
    assert (tmp_path / "out.kept-1").read_bytes() == b"work"
    assert names(tmp_path) == ["out", "out.kept-1"]
    assert replaces != "file" or path.read_bytes() == PRECIOUS


@pytest.mark.parametrize("replaces", ["folder", "empty folder", "file"])
def test_a_folder_that_appeared_meanwhile_stays_and_the_work_is_kept(tmp_path: Path, replaces: str) -> None:
    path = tmp_path / "out"
    (tmp_path / "out.kept-1").mkdir()  # of an earlier time

    def late() -> None:
        with whole_directory(path, kind="kind") as part:
            (part / "kind").write_bytes(b"work")
            path.write_bytes(PRECIOUS) if replaces == "file" else path.mkdir()
            if replaces == "folder":
                (path / "thesis").write_bytes(PRECIOUS)

    with pytest.raises(OutputTakenError, match=r"kept in .*out\.kept-2"):
        late()
    assert (tmp_path / "out.kept-2" / "kind").read_bytes() == b"work"
    assert names(tmp_path) == ["out", "out.kept-1", "out.kept-2"]
    assert replaces != "folder" or (path / "thesis").read_bytes() == PRECIOUS


def test_overwrite_replaces_only_what_is_of_the_kind_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out"

    def late() -> None:
        with whole_directory(path, kind="kind", replace=True) as part:
            (part / "kind").write_bytes(b"work")
            path.mkdir()
            (path / "thesis").write_bytes(PRECIOUS)

    with pytest.raises(OutputTakenError, match="kept in"):
        late()
    assert (path / "thesis").read_bytes() == PRECIOUS
    assert names(tmp_path) == ["out", "out.kept-1"]


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*paths: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", refuses)
    path = tmp_path / "out"
    with whole_file(path, replace=False) as file:
        file.write(b"work")
    assert path.read_bytes() == b"work"
    assert names(tmp_path) == ["out"]
    late = whole_file(path, replace=False)
    with pytest.raises(OutputTakenError), late as file:
        file.write(b"more")
    assert path.read_bytes() == b"work"


def verbs(tiny: Tiny, histories: Path) -> dict[str, list[object]]:
    """A command for every verb that writes, less its output."""
    shop = histories.parent / "shop"
    shop.mkdir()
    (shop / "index.json").symlink_to(tiny.index)
    items = write(shop / "items.json", {item: {"title": f"item {item}", "categories": ["a", "b"]} for item in "012345"})
    for split in ("train", "valid", "test"):
        write(shop / f"{split}.jsonl", *({**user(f"u{i}", i, i + 1), "labels": [str(i + 2)]} for i in range(20)))
    short = ["--steps", 2, "--batch-size", 4]
    return {
        "infer": ["infer", tiny.bundle, histories, "--threads", 1],
        "explain": ["explain", tiny.bundle, "--history", "1,2", "--threads", 1],
        "evaluate": ["evaluate", tiny.bundle, shop, "-k", 2, "--timed-users", 0, "--users", 2, "--threads", 1],
        "evaluate plot": ["evaluate", tiny.bundle, shop, "-k", 2, "--timed-users", 0, "--users", 2, "--threads", 1],
        "build-pool": ["build-pool", "--items", histories],
        "group-users": ["group-users", histories, "--method", "random", "--groups", 2],
        "group-items": ["group-items", items, "--min-size", 1],
        "export": ["export", "--target", tiny.target, "--catalog", tiny.index, "--history-length", 12],
        "train": ["train", "--data", shop, "--config", "1x32", *short],
        "align": ["align", "--target", tiny.target, "--draft", tiny.draft, "--data", shop, "--history-length", 8,
                  *short],
    }  # fmt: skip


VERBS = [
    "infer", "explain", "evaluate", "evaluate plot", "build-pool", "group-users", "group-items", "export", "train",
    "align",
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_replaces_what_appeared_meanwhile(
    tiny: Tiny, histories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    output = tmp_path / ("out.svg" if verb in ("explain", "evaluate plot") else "out")
    option = "--plot" if verb == "evaluate plot" else "--output"
    place = files._placed

    def late(part: Path, path: Path, how: Callable[[Path, Path], None]) -> None:
        if path == output:
            path.write_bytes(PRECIOUS)
        place(part, path, how)

    monkeypatch.setattr(files, "_placed", late)
    message = bad(*verbs(tiny, histories)[verb], option, output)
    assert f"{output} appeared while this ran, and is not replaced." in message
    kept = output.with_name(f"{output.name}.kept-1")
    assert f"kept in {kept}" in message
    assert output.read_bytes() == PRECIOUS
    assert kept.stat().st_size > 0
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_an_engine_that_appeared_meanwhile_stays(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = bundle / "engines" / "onnxruntime-cpu-fp32"
    engine.rename(bundle / "aside")
    place = files._placed

    def late(part: Path, path: Path, how: Callable[[Path, Path], None]) -> None:
        if path == engine:
            (bundle / "aside").rename(engine)
        place(part, path, how)

    before = (bundle / "aside" / "engine.json").read_bytes()
    monkeypatch.setattr(files, "_placed", late)
    assert "kept in" in bad("build-engine", bundle, "--threads", 1)
    assert (engine / "engine.json").read_bytes() == before
    assert names(bundle / "engines") == ["default.json", "onnxruntime-cpu-fp32", "onnxruntime-cpu-fp32.kept-1"]


def test_rejects_that_cannot_take_their_place_cost_no_results(
    tiny: Tiny, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = write(tmp_path / "h.jsonl", user("a", 1), "{", user("b", 2))
    rejects, place = tmp_path / "bad.jsonl", files._placed

    def late(part: Path, path: Path, how: Callable[[Path, Path], None]) -> None:
        if path == rejects:
            path.write_bytes(PRECIOUS)
        place(part, path, how)

    monkeypatch.setattr(files, "_placed", late)
    message = bad("infer", tiny.bundle, histories, "-o", output, "--rejects", rejects, "--threads", 1)
    assert f"{rejects} appeared" in message
    assert [line["user"] for line in lines(output)] == ["a", "b"]
    assert rejects.read_bytes() == PRECIOUS
    assert [line["line"] for line in lines(tmp_path / "bad.jsonl.kept-1")] == [2]


def test_a_folder_made_while_a_pool_is_built(tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen([*SPECBEAM, "build-pool", "--items", "-", "-o", output], stdin=-1, stderr=-1)
    assert process.stdin is not None
    process.stdin.write(b'{"user": "a", "items": ["1", "2"]}\n')
    process.stdin.flush()
    wait_for(lambda: any(name.endswith("-part") for name in names(tmp_path)))
    output.mkdir()
    (output / "thesis.txt").write_bytes(PRECIOUS)
    _, err = process.communicate(b'{"user": "b", "items": ["1", "2", "3"]}\n', timeout=60)
    assert process.returncode == 1
    assert b"appeared while this ran" in err
    assert (output / "thesis.txt").read_bytes() == PRECIOUS
    assert names(tmp_path) == ["out", "out.kept-1"]
    good("infer", "--help")


# --- claims


def wait_for(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


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


# --- litter

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


# --- what the process shares


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


# --- late


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
