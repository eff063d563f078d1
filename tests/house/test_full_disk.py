"""A file system that is full: every verb says so, and leaves nothing half-written."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import specbeam.catalog.files as files
from commands import bad, good, user, write
from specbeam.catalog.disk import told_if_full
from specbeam.catalog.errors import DiskFullError, EngineError
from specbeam.catalog.files import whole_directory, whole_file
from specbeam.export.text import export_text
from tiny_bundle import Tiny
from tiny_models import make_text_tokenizer, tiny_checkpoint


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that holds a megabyte; `fill` leaves less."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a small file system is not permitted here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, *, leaving: int) -> None:
    """Leave so many kibibytes."""
    room = os.statvfs(folder)
    (folder / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize - (leaving << 10)))


@pytest.mark.parametrize("library", ["python", "numpy", "safetensors"])
def test_libraries_that_meet_a_full_disk(small: Path, library: str) -> None:
    many = np.zeros(2 << 20, np.uint8)

    def written() -> None:
        with whole_directory(small / "out", kind="kind") as part:
            if library == "numpy":
                many.tofile(part / "kind")
            elif library == "safetensors":
                save_file({"a": many}, part / "kind")
            else:
                (part / "kind").write_bytes(many.tobytes())

    with pytest.raises(DiskFullError, match=rf"No space left on {small} while writing {small / 'out'}\. Free some"):
        written()
    assert names(small) == []


@pytest.mark.parametrize(
    "verb", ["export", "build-engine", "build-engine fp16", "tune", "infer", "build-pool", "train"]
)
def test_every_verb_says_so(tiny: Tiny, tmp_path: Path, small: Path, verb: str) -> None:
    histories = write(tmp_path / "h.jsonl", *(user(i, i % 40, (i * 7) % 40) for i in range(400)))
    output, leaving = small / "out", 40
    command: list[object] = [verb, *(["--items"] if verb == "build-pool" else []), histories]
    if verb == "export":
        command = ["export", "--target", tiny.target, "--catalog", tiny.index]
    elif verb == "train":
        shop = tmp_path / "shop"
        shop.mkdir()
        shutil.copy(tiny.index, shop / "index.json")
        for split in ("train", "valid"):
            write(shop / f"{split}.jsonl", *({**user(f"u{i}", i, i + 1), "labels": [str(i + 2)]} for i in range(20)))
        command = ["train", "--data", shop, "--config", "1x64", "--steps", 2, "--batch-size", 4]
    elif verb == "infer":
        command = ["infer", tiny.bundle, histories, "--threads", 1, "--drafter", "none"]
    elif verb == "build-pool":
        leaving = 4
    if verb.startswith("build-engine") or verb == "tune":
        bundle = shutil.copytree(tiny.bundle, small / "bundle")
        if verb == "tune":
            leaving, command = 0, ["tune", bundle, histories, "--limit", 4, "--threads", 1]
        else:
            shutil.rmtree(bundle / "engines")
            command = ["build-engine", bundle, "--threads", 1, "--precision", verb[13:] or "fp32"]
    else:
        command += ["--output", output]
    fill(small, leaving=leaving)
    before = names(small)
    message = bad(*command)
    assert f"No space left on {small} while writing" in message
    assert "Free some space" in message
    # which an interrupted training, or run, goes on from
    left = set(names(small)) - set(before) - {"out.work", "out.partial", "out.partial.rejects", "out.partial.log"}
    assert not left
    if verb.startswith("build-engine"):
        assert not (small / "bundle" / "engines").exists() or names(small / "bundle" / "engines") == []


def test_generate_says_so_and_goes_on_afterwards(tmp_path: Path, small: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", tokenizer=make_text_tokenizer(), tied=True)
    export_text(checkpoint, tmp_path / "bundle", prompt="About {prompt}:")
    good("build-engine", tmp_path / "bundle", "--threads", 1)
    prompts = write(tmp_path / "prompts.jsonl", *({"id": str(i), "prompt": "desk " * (i % 5 + 1)} for i in range(60)))
    command = ["generate", tmp_path / "bundle", prompts, "-o", small / "out", "--max-new-tokens", 16, "--threads", 1]
    fill(small, leaving=8)
    assert f"No space left on {small} while writing" in bad(*command)
    assert set(names(small)) <= {"filler", "out.partial", "out.partial.rejects", "out.partial.log"}
    (small / "filler").unlink()
    assert "Going on with an interrupted run" in good(*command).output
    assert names(small) == ["out"]
    assert len((small / "out").read_text().splitlines()) == 60


# --- where no small file system can be had


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        RuntimeError("Error while serializing: IoError(Os { code: 28, message: 'No space left on device' })"),
        EngineError("the graph cannot be optimized: [ONNXRuntimeError] : 1 : FAIL : No space left on device"),
    ],
)
def test_what_is_said_in_other_words(tmp_path: Path, error: Exception) -> None:
    def written() -> None:
        with whole_file(tmp_path / "out", replace=False) as file:
            file.write(b"half")
            raise error

    with pytest.raises(DiskFullError, match=r"No space left on .* while writing"):
        written()
    assert names(tmp_path) == []


def test_an_error_without_a_reason_is_the_disk_s_where_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unclear() -> None:
        with told_if_full(tmp_path / "out"):
            raise OSError("1048576 requested and 4096 written")

    with pytest.raises(OSError, match="requested"):
        unclear()
    monkeypatch.setattr("specbeam.catalog.disk._free", lambda path: 0)
    with pytest.raises(DiskFullError):
        unclear()
    with pytest.raises(PermissionError), told_if_full(tmp_path / "out"):
        raise PermissionError(13, "Permission denied")


def test_the_last_step_of_a_write_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFullError), whole_file(tmp_path / "out", replace=True) as file:
        file.write(b"all of it")
    assert names(tmp_path) == []
