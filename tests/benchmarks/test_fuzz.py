"""The command that fuzzes everything: crashes and hangs of a target are findings, and each can be given again."""

import ctypes
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.reliability import fuzz as command
from benchmarks.reliability.fuzz_mutations import Target
from fuzzing import Report
from specbeam.catalog.errors import SpecBeamError


def inputs(number: int, seed: int) -> Iterator[bytes]:
    yield from (str(i % 10 + seed).encode() for i in range(number))


def use(data: bytes) -> None:
    if data == b"3":
        raise SpecBeamError("Refused.")
    if data == b"5":
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does, or a fault in C
    if data == b"7":
        raise KeyError("foreign")


def run(number: int, **changes: float) -> Report:
    return command.run(Target("t", use, inputs), number, changes.get("seconds", 60.0), 0, lambda done: None, False)


def test_a_crash_is_passed_over_and_kept() -> None:
    report = run(20)
    assert (report.inputs, report.accepted, report.refused) == (20, 14, 2)
    assert sorted(finding.data for finding in report.findings) == [b"5", b"5", b"7", b"7"]
    assert report.kinds()["crash: exit status -9"] == 2


def test_a_run_ends_when_its_time_is_over() -> None:
    endless = Target("t", lambda data: time.sleep(0.01), inputs)
    report = command.run(endless, 10**6, 0.5, 0, lambda done: None, False)
    assert 1 <= report.inputs < 60


def test_a_library_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals are looked at between two instructions of Python, of which a library has none."""
    monkeypatch.setattr(command, "SILENT", 0.5)
    monkeypatch.setattr(command, "CRASHES", 1)
    usleep = ctypes.PyDLL(None).usleep  # with Python's lock held
    report = command.run(Target("t", lambda data: usleep(900_000_000), inputs), 5, 60.0, 0, lambda done: None, False)
    assert [(finding.data, finding.error) for finding in report.findings] == [(b"0", "hang")]


def test_what_went_wrong_is_kept_with_its_command(tmp_path: Path) -> None:
    results = command.Results(tmp_path, {"seed": 4})
    results.add("reader: a, b", run(10))
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["reader-a-b-1", "reader-a-b-1.txt", "reader-a-b-2", "reader-a-b-2.txt", "report.json"]
    again = (tmp_path / "reader-a-b-1.txt").read_text()
    assert f"benchmarks.reliability.fuzz --target 'reader: a, b' --replay {tmp_path / 'reader-a-b-1'}" in again
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["seed"] == 4
    assert report["total"]["inputs"] == 10
    assert report["total"]["foreign"] == 2
    assert "| reader: a, b | 10 | 7 | 1 | 2 | 0 |" in "\n".join(results.table())
