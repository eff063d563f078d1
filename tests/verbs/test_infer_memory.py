"""infer --memory: the same lists, and what is said where nothing fits."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from commands import bad, good, lines, run, same_items, user, write
from specbeam.runtime import Batching, Recommender
from specbeam.runtime import room as room_module
from specbeam.verbs.options import MemorySize
from tiny_bundle import Tiny


@pytest.mark.parametrize(
    ("told", "size"),
    [("1", 1), ("12 B", 12), ("2GB", 2 * 10**9), ("2 g", 2 * 10**9), ("1.5GiB", 3 << 29), ("512mib", 512 << 20)],
)
def test_sizes_are_numbers_with_units(told: str, size: int) -> None:
    assert MemorySize().convert(told, None, None) == size


@pytest.mark.parametrize("told", ["", "GB", "0", "0.1B", "-1GB", "2XB", "two", "1e9", "nan", "2GB2", "1" * 400])
def test_what_is_no_size_says_what_is(told: str) -> None:
    with pytest.raises(click.BadParameter, match="expected such as 2GB, 512MiB, or bytes"):
        MemorySize().convert(told, None, None)


@pytest.mark.parametrize("options", [["--drafter", "none"], ["--speculation", "fixed"], ["--verify", "relaxed"]])
def test_lists_are_the_same(tiny: Tiny, tmp_path: Path, options: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "users.jsonl", *(user(f"u{i}", *((i * j) % 40 for j in range(1, 9))) for i in range(40)))
    good("infer", tiny.bundle, source, "-o", tmp_path / "whole.jsonl", "-k", 10, *options)
    monkeypatch.setattr(room_module, "resident_memory", lambda: 0)
    result = good("infer", tiny.bundle, source, "-o", tmp_path / "cut.jsonl", "-k", 10, "--memory", "900kB", *options)
    assert "40 requests" in result.stdout
    for got, expected in zip(lines(tmp_path / "cut.jsonl"), lines(tmp_path / "whole.jsonl"), strict=True):
        assert got["user"] == expected["user"]
        assert same_items(got["items"], expected["items"])


def test_a_request_that_does_not_fit_is_a_reject_and_the_rest_goes_on(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_module, "resident_memory", lambda: 0)
    source = write(tmp_path / "users.jsonl", user("a", 1), user("b", 2) | {"k": 40}, user("c", 3))
    output = tmp_path / "recs.jsonl"
    room = Recommender.open(tiny.bundle, drafting="none", batching=Batching(8, 10**9))._room
    assert room is not None
    limit = int(room.needed(5, 1, 1, call=1) / (1 - room_module.MARGIN)) + 1000
    said = bad("infer", tiny.bundle, source, "-o", output, "-k", 1, "--memory", limit, "--drafter", "none")
    assert "1 requests could not be answered, and are among the rejects" in said
    assert [line["user"] for line in lines(output)] == ["a", "c"]
    (reject,) = lines(tmp_path / "recs.jsonl.rejects.jsonl")
    assert reject["line"] == 2
    assert "Allow more memory, or ask for a shorter list" in reject["reason"]


def test_a_limit_that_leaves_nothing_says_what_to_expect(tiny: Tiny, histories: Path, tmp_path: Path) -> None:
    said = bad("infer", tiny.bundle, histories, "-o", tmp_path / "recs.jsonl", "--memory", "20MB")
    assert "a limit of 20 MB leaves nothing for searches" in said
    assert "Expected at least" in said
    assert not (tmp_path / "recs.jsonl").exists()
    assert run("infer", tiny.bundle, histories, "-o", tmp_path / "recs.jsonl", "--memory", "lots").exit_code == 2


def test_every_worker_has_the_limit_to_itself(tiny: Tiny, tmp_path: Path) -> None:
    source = write(tmp_path / "users.jsonl", *(user(f"u{i}", i, i + 1) for i in range(20)))
    common = ["-k", "5", "--speculation", "fixed", "--batch-size", "4", "--threads", "1"]
    command = [sys.executable, "-m", "specbeam.cli", "infer", str(tiny.bundle), str(source), *common]
    for name, more in (("one", []), ("two", ["--workers", "2", "--memory", "1GB"])):
        subprocess.run([*command, "--output", str(tmp_path / name), *more], check=True, capture_output=True)
    for got, expected in zip(lines(tmp_path / "two"), lines(tmp_path / "one"), strict=True):
        assert same_items(got["items"], expected["items"])
