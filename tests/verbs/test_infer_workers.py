"""infer by several processes: the same bytes as by one, whatever happens to them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import Result

from commands import bad, good, only, user, write
from nan_cases import marked
from specbeam.runtime.runs.log import JournalFiles
from tiny_bundle import ENGINE, Tiny, break_rows
from worker_cases import gone

POPULAR = ["--when-empty", "popular", "--popular", "{popular}"]
ENDINGS = ("", ".rejects.jsonl")
FIXED = ["--threads", 1, "--speculation", "fixed", "--batch-size", 2]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """More than two windows of batches of two, with lines of every kind."""
    entries: list[object] = [user(f"u{i}", *((i * j) % 40 for j in range(1, 2 + i % 9))) for i in range(150)]
    entries[3:3] = ["no JSON", {"user": "new", "items": []}, {"user": "odd", "items": ["unknown"]}]
    entries[70:70] = [
        user("own", 1, 2) | {"k": 3, "allow": [4, 5, 6], "exclude_history": True},
        user("none", 1) | {"allow": ["unknown"]}, user("long", *range(20)), user("some", 1, "unknown"),
    ]  # fmt: skip
    return write(tmp_path / "many.jsonl", *entries)


def same(output: Path, whole: Path) -> bool:
    return all(Path(f"{output}{end}").read_bytes() == Path(f"{whole}{end}").read_bytes() for end in ENDINGS)


@pytest.mark.parametrize(
    "options",
    [
        ["--stats", "--exclude-history"],
        ["--verify", "sampled", "--seed", 3, "--verify-sample", 0.5, *POPULAR],
        ["--drafter", "none", "--deny", "{popular}"],
    ],
    ids=["fixed", "sampled", "plain"],
)  # fmt: skip
def test_the_same_bytes(tiny: Tiny, many: Path, output: Path, tmp_path: Path, options: list[object]) -> None:
    popular = tmp_path / "popular.txt"
    popular.write_text("1\n2\nunknown\n")
    command = ["infer", tiny.bundle, many, "-k", 5, *(str(option).format(popular=popular) for option in options)]
    command += [option for option in FIXED if "none" not in options or option not in ("--speculation", "fixed")]
    one = good(*command, "-o", tmp_path / "whole")
    two = good(*command, "-o", output, "--workers", 2)
    assert same(output, tmp_path / "whole")
    assert told(two, output) == told(one, tmp_path / "whole")  # sums over all workers


def told(result: Result, output: Path) -> list[str]:
    """What a run says, but for how long it took."""
    said = result.output.replace(str(output), "OUT").splitlines()
    assert sum("requests/s" in line for line in said) == 1
    return [line for line in said if "requests/s" not in line]


def test_standard_output(tiny: Tiny, many: Path, tmp_path: Path) -> None:
    good("infer", tiny.bundle, many, "-o", tmp_path / "whole", *FIXED)
    command = [sys.executable, "-m", "specbeam.cli", "infer", tiny.bundle, "-", "-o", "-", *FIXED, "--workers", 2]
    done = subprocess.run([str(word) for word in command], input=many.read_bytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "whole").read_bytes()


def test_requests_without_numbers(tiny: Tiny, bundle: Path, output: Path, tmp_path: Path) -> None:
    token, item, holders = marked(tiny)
    fine = [one for one in tiny.item_ids if one not in holders]
    entries = [user(f"u{i}", *([item] if i % 30 == 9 else fine[i % 5 : 7])) for i in range(100)]
    break_rows(bundle, [token])

    def messages(source: Path) -> list[str]:
        runs = ((tmp_path / "whole", 1), (output, 2))
        return [
            bad("infer", bundle, source, "-o", path, *FIXED, "--workers", workers).replace(str(path), "OUT")
            for path, workers in runs
        ]

    one, two = messages(write(tmp_path / "some.jsonl", *entries))
    assert one == two
    assert "4 requests could not be answered" in one
    assert same(output, tmp_path / "whole")
    output.unlink()
    (tmp_path / "whole").unlink()
    for path in (output, tmp_path / "whole"):
        path.with_name(f"{path.name}.rejects.jsonl").unlink()
    one, two = messages(write(tmp_path / "more.jsonl", *entries, *(user(f"b{i}", item) for i in range(9))))
    assert "Stopped, because whole batches failed: 8 requests in succession could not be answered" in one
    assert one == two
    for kept in (".partial", ".partial.rejects"):
        assert Path(f"{output}{kept}").read_bytes() == (tmp_path / f"whole{kept}").read_bytes()


def test_what_cannot_be_opened_leaves_nothing(bundle: Path, histories: Path, output: Path) -> None:
    graph = bundle / "engines" / ENGINE / "draft/model.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    command = ["infer", bundle, histories, "-o", output]
    assert bad(*command, "--workers", 2) == bad(*command)
    only(output)


def begun(*command: object) -> "subprocess.Popen[bytes]":
    """A run in a group of its own, as a terminal has it; and it has made some batches."""
    process = subprocess.Popen(
        [sys.executable, "-m", "specbeam.cli", *map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    log = JournalFiles.of(Path(str(command[-1]))).log
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_bytes().count(b"\n") < 4:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    return process


def workers_of(process: "subprocess.Popen[bytes]") -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


@pytest.mark.parametrize("how", ["kill the run", "kill a worker", "Ctrl-C", "SIGTERM to all"])
def test_a_run_that_ends_early_goes_on(tiny: Tiny, tmp_path: Path, output: Path, how: str) -> None:
    source, whole = tmp_path / "h.jsonl", tmp_path / "whole"
    source.write_text("".join(json.dumps(user(f"u{i}", i % 40, i * 7 % 40)) + "\n" * (1 + i % 2) for i in range(6000)))
    command = ["infer", tiny.bundle, source, *FIXED]
    process = begun(*command, "--workers", 2, "-o", output)
    workers = workers_of(process)
    assert len(workers) == 2
    if how == "kill the run":
        process.kill()
    elif how == "kill a worker":
        os.kill(workers[0], signal.SIGKILL)
    elif how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        for pid in (*workers, process.pid):
            os.kill(pid, signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    status, message = {
        "kill the run": (-signal.SIGKILL, ""),
        "kill a worker": (1, f"Error: A worker process ({workers[0]}) was ended by SIGKILL"),
        "Ctrl-C": (128 + signal.SIGINT, "Run the same command again to go on"),
        "SIGTERM to all": (128 + signal.SIGTERM, "Run the same command again to go on"),
    }[how]
    assert process.returncode == status
    assert message in error.decode()
    assert "Traceback" not in error.decode()
    assert gone(workers)
    assert not output.exists()
    assert "Going on with an interrupted run" in good(*command, "--workers", 2, "-o", output).stderr
    good(*command, "-o", whole)
    assert output.read_bytes() == whole.read_bytes()
