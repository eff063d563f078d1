"""Outputs: claimed from a run's start to its end, never put in another's place, swept when their writer died."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import specbeam.catalog.files as files
from commands import bad, good, lines, user, write
from output_cases import PRECIOUS, SPECBEAM, names
from specbeam.catalog.errors import OutputTakenError
from specbeam.catalog.files import whole_directory, whole_file
from tiny_bundle import Tiny


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
        "bench": ["bench", tiny.bundle, histories, "-k", 2, "--batches", 1, "--contestants", "plain", "--rounds", 1],
        "build-pool": ["build-pool", "--items", histories],
        "group-users": ["group-users", histories, "--method", "random", "--groups", 2],
        "group-items": ["group-items", items, "--min-size", 1],
        "export": ["export", "--target", tiny.target, "--catalog", tiny.index, "--history-length", 12],
        "train": ["train", "--data", shop, "--config", "1x32", *short],
        "align": ["align", "--target", tiny.target, "--draft", tiny.draft, "--data", shop, "--history-length", 8,
                  *short],
    }  # fmt: skip


VERBS = [
    "infer", "explain", "evaluate", "evaluate plot", "bench", "build-pool", "group-users", "group-items", "export",
    "train", "align",
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


def wait_for(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)
