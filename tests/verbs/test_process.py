"""The command line as a process: pipes, signals, and packages that are not installed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands import bad, good, lines, only, same_items, user, write
from specbeam.catalog.extras import install
from specbeam.cli import missing_package
from tiny_bundle import Tiny

SPECBEAM = [sys.executable, "-m", "specbeam.cli"]


def start(*arguments: object) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    return subprocess.Popen([*SPECBEAM, *map(str, arguments)], stdin=pipe, stdout=pipe, stderr=pipe)


def test_pipes_carry_json_lines_only(tiny: Tiny, histories: Path, output: Path) -> None:
    good("infer", tiny.bundle, histories, "-o", output, "-k", 4)
    process = start("infer", tiny.bundle, "-", "--output", "-", "-k", 4, "--threads", 1)
    out, err = process.communicate(histories.read_bytes() + b'{"user": \n' + b'{"user": "x", "items": ["?"]}\n')
    assert process.returncode == 0, err
    piped = [json.loads(line) for line in out.splitlines()]
    for line, wanted in zip(piped, lines(output), strict=True):
        assert (line["user"], line["line"]) == (wanted["user"], wanted["line"])
        assert same_items(line["items"], wanted["items"])
    message = err.decode()
    assert "-, line 7: " in message  # without --rejects the reasons go where the summary goes
    assert "-, line 8: A history cannot be used: none of its 1 items is in the catalog" in message
    assert "6 requests in " in message
    assert "2 lines were rejected\n" in message


def test_warnings_and_short_lists_do_not_mix_with_the_results(tiny: Tiny, tmp_path: Path) -> None:
    deny = tmp_path / "deny.txt"
    deny.write_text("\n".join([*tiny.item_ids[3:], "stranger"]))
    process = start("infer", tiny.bundle, "-", "-o", "-", "--deny", deny, "--threads", 1, "--verify", "sampled")
    out, err = process.communicate(b'{"user": "u", "items": ["9"], "k": 2}\n{"user": "v", "items": ["9"]}\n')
    assert process.returncode == 0, err
    first, second = (json.loads(line) for line in out.splitlines())
    assert (len(first["items"]), "available" in first) == (2, False)
    assert (len(second["items"]), second["available"]) == (3, 3)
    assert f"{deny}: 1 of 38 items are not in the catalog (e.g. 'stranger'); they are ignored\n" in err.decode()
    assert "1 lists are short: fewer items are allowed than were asked for\n" in err.decode()


def test_rejects_of_a_pipe(tiny: Tiny, tmp_path: Path) -> None:
    rejects = tmp_path / "bad.jsonl"
    process = start("infer", tiny.bundle, "-", "-o", "-", "--rejects", rejects, "--threads", 1)
    out, err = process.communicate(b'{"user": "u", "items": ["1"]}\nnothing\n')
    assert process.returncode == 0, err
    assert len(out.splitlines()) == 1
    (reject,) = lines(rejects)
    assert (reject["file"], reject["line"], reject["raw"]) == ("-", 2, "nothing")
    assert f"1 lines were rejected: see {rejects}" in err.decode()
    assert "line 2" not in err.decode()


def test_a_reader_that_goes_away_ends_the_run_quietly(tiny: Tiny, tmp_path: Path) -> None:
    source = write(tmp_path / "many.jsonl", *(user(i, str(i % 40)) for i in range(600)))
    with start("infer", tiny.bundle, source, "-o", "-", "-k", 40, "--threads", 1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["user"] == "0"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_standard_input_is_read_whatever_file_has_its_name(
    tiny: Tiny, histories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "-").write_text("no history\n")
    monkeypatch.chdir(tmp_path)
    process = start("infer", tiny.bundle, "-", "-o", "recs.jsonl", "-k", 4, "--threads", 1)
    _, err = process.communicate(histories.read_bytes())
    assert process.returncode == 0, err
    assert len(lines(tmp_path / "recs.jsonl")) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_that_waits_for_its_input(tiny: Tiny, tmp_path: Path, number: signal.Signals) -> None:
    output, partial = tmp_path / "recs.jsonl", tmp_path / "recs.jsonl.partial"
    process = start("infer", tiny.bundle, "-", "-o", output, "--threads", 1)
    assert process.stdin is not None
    # one window of requests, and the next never comes
    process.stdin.write(b'malformed\n{"user": "u", "items": ["1"]}\n' * 200)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not partial.exists() or not partial.stat().st_size:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"Traceback" not in err
    told = f"Not all was done: 128 requests are kept in {partial}. The input is a pipe: a run cannot go on"
    assert told in err.decode()
    assert not output.exists()
    assert len(partial.read_text().splitlines()) == 128


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_between_batches_and_the_next_run_goes_on(
    tiny: Tiny, tmp_path: Path, number: signal.Signals
) -> None:
    histories, output, whole = tmp_path / "h.jsonl", tmp_path / "recs.jsonl", tmp_path / "whole.jsonl"
    histories.write_text("".join(json.dumps(user(f"u{i}", i % 40, i * 7 % 40)) + "\n" for i in range(4000)))
    command = ["infer", tiny.bundle, histories, "--threads", 1, "--speculation", "fixed", "--batch-size", 2]
    process = start(*command, "-o", output)
    log = tmp_path / "recs.jsonl.partial.log"
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_bytes().count(b"\n") < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"Run the same command again to go on" in err
    process = start(*command, "-o", output)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert b"Going on with an interrupted run" in err
    good(*command, "-o", whole)
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("onnxruntime", ["build-engine", "{bundle}"], "cpu"),
        ("onnxruntime", ["infer", "{bundle}", "{histories}", "-o", "{output}"], "cpu"),
        ("torch", ["infer", "{bundle}", "{histories}", "-o", "{output}", "--engine", "torch-cpu-fp32"], "export"),
        *(
            (package, ["export", "--target", "{target}", "--catalog", "{index}", "-o", "{output}"], "export")
            for package in ("torch", "transformers")
        ),
        ("torch", ["demo", "-o", "{output}"], "export"),
    ],
)
def test_a_package_that_is_not_installed(
    tiny: Tiny, histories: Path, output: Path, package: str, arguments: list[str], extra: str
) -> None:
    places = {
        "bundle": tiny.bundle, "histories": histories, "output": output, "target": tiny.target, "index": tiny.index,
    }  # fmt: skip
    code = f"import sys; sys.modules[{package!r}] = None; from specbeam.cli import main; main()"
    command = [sys.executable, "-c", code, *(argument.format(**places) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"Error: {package} is not installed. Run: {install(extra)}\n" in done.stderr
    assert "Traceback" not in done.stderr
    only(output)


def test_a_package_that_a_library_misses_is_named() -> None:
    wrapped = ModuleNotFoundError("Could not import module 'TrainingArguments'", name="TrainingArguments")
    wrapped.__cause__ = ModuleNotFoundError("No module named 'accelerate'", name="accelerate")  # as transformers does
    assert missing_package(wrapped) == "accelerate"
    assert missing_package(ModuleNotFoundError("", name="no_such")) is None


def test_parquet_without_pyarrow(tiny: Tiny, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    source = tmp_path / "histories.parquet"
    source.touch()
    message = bad("infer", tiny.bundle, source, "-o", output)
    assert f"{source}: reading Parquet needs pyarrow. Run: {install('parquet')}" in message
    only(output)
