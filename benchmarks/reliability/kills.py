"""Runs of `infer` that are ended at random times, and by a full disk: every line is there in the end, once.

Run: python -m benchmarks.reliability.kills [--users 20000] [--kills 200] [--seed 0] [--workers 1] [--bundle DIR]
A run of its own process, without interruption, says what the output and the rejects must be. Then runs are begun, ended
after a random time (by SIGKILL, SIGTERM or SIGINT), and begun again until they end by themselves, as often as it takes
for so many kills. The last run meets a full disk in the middle (needs the right to mount a small file system).
The bundle is a tiny random pair unless one is given; drafting is fixed, so that outputs can be compared byte for byte.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import click
from tqdm import tqdm

import specbeam.runtime
from specbeam.cli import main as specbeam
from specbeam.engines.onnxruntime import cpu as ort  # noqa: F401

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
BROKEN = 99  # exit status of a process that raised what it should not
ODD = ('{"user": "odd", "items": []}', "no JSON", '{"user": "odd", "items": ["unknown"]}', '{"items": ["1"]}')


@dataclass
class Found:
    """What was seen."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    processes: int = 0
    lost: int = 0
    doubled: int = 0
    different: int = 0  # runs whose files are not, byte for byte, those of the run without interruption
    full_disk: str = "not permitted here"

    @property
    def bad(self) -> bool:
        return bool(self.lost or self.doubled or self.different)


def tiny_bundle(folder: Path) -> Path:
    """A random pair for 40 items; made by a process of its own, so that this one has no threads when it forks."""
    process = os.fork()
    if not process:
        try:
            from tiny_bundle import build_tiny

            build_tiny(folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert ended(process, None, None) == 0
    return folder / "bundle"


def write_histories(path: Path, users: int, items: list[str], seed: int) -> None:
    """A request a user, of which one in a hundred cannot be used."""
    chance = random.Random(seed)
    with path.open("w") as file:
        for user in range(users):
            history = chance.choices(items, k=chance.randint(1, 9))
            odd = chance.choice(ODD) if chance.random() < 0.01 else None
            file.write(odd or json.dumps({"user": f"u{user}", "items": history}))
            file.write("\n")


def begun(command: list[str], log: Path) -> int:
    """A process that runs it."""
    process = os.fork()
    if process:
        return process
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    status = 1
    try:
        specbeam(command)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = BROKEN
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(process: int, seconds: float | None, how: signal.Signals | None) -> int | None:
    """The exit status of a process, which gets a signal after so many seconds; None: it was that which ended it."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return None if how is not None and code in (-how, 128 + how, 1) and code != 0 else code
        if deadline is not None and how is not None and time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(process, how)
            deadline = None
        time.sleep(0.002)


def compare(output: Path, expected: Path, found: Found) -> None:
    """Take note of what a run that came to its end has made."""
    for ending in ("", ".rejects.jsonl"):
        got, wanted = (path.with_name(path.name + ending).read_bytes() for path in (output, expected))
        if got == wanted:
            continue
        found.different += 1
        lines, own = (Counter(json.loads(line)["line"] for line in data.splitlines()) for data in (got, wanted))
        found.lost += len(own - lines)
        found.doubled += sum((lines - own).values())


def meets_full_disk(command: list[str], folder: Path, expected: Path, found: Found) -> None:
    """A run on a file system that is full when half of its results are there."""
    small = folder / "small"
    small.mkdir()
    total = sum(expected.with_name(expected.name + ending).stat().st_size for ending in ("", ".rejects.jsonl"))
    size = ["-o", f"size={3 * total + (4 << 20)}"]
    if subprocess.run(["mount", "-t", "tmpfs", *size, "tmpfs", small], capture_output=True, check=False).returncode:
        return
    try:
        room = os.statvfs(small)
        (small / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize - total // 2))
        log = folder / "full.log"
        status = ended(begun([*command, "-o", str(small / "out")], log), None, None)
        assert status == 1, log.read_text()
        assert "No space left on" in log.read_text(), log.read_text()
        (small / "filler").unlink()
        status = ended(begun([*command, "-o", str(small / "out")], log), None, None)
        assert status == 0, log.read_text()
        before = found.different
        compare(small / "out", expected, found)
        found.full_disk = "the same files after space was made" if found.different == before else "OTHER FILES"
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


@click.command()
@click.option("--users", default=20_000, show_default=True, type=click.IntRange(1))
@click.option("--kills", default=200, show_default=True, type=click.IntRange(0))
@click.option("--seed", default=0, show_default=True)
@click.option("--bundle", type=click.Path(path_type=Path), help="With an engine; default: a tiny random pair.")
@click.option("--batch-size", default=8, show_default=True)
@click.option(
    "--workers", default=1, show_default=True, help="Of the runs that are ended; what must be is made by one."
)
def main(users: int, kills: int, seed: int, bundle: Path | None, batch_size: int, workers: int) -> None:
    """Count lines that are lost or doubled."""
    from specbeam.engines.bundle.items import Bundle

    chance, found = random.Random(seed), Found()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle = bundle or tiny_bundle(folder)
        write_histories(folder / "h.jsonl", users, list(Bundle.open(bundle).catalog().item_ids), seed)
        command = ["infer", str(bundle), str(folder / "h.jsonl"), "--threads", "1", "--top-k", "5"]
        command += ["--speculation", "fixed", "--batch-size", str(batch_size)]
        expected, log = folder / "expected", folder / "log"
        start = time.monotonic()
        assert ended(begun([*command, "-o", str(expected)], log), None, None) == 0, log.read_text()
        whole = time.monotonic() - start
        command += ["--workers", str(workers)]
        with tqdm(total=kills, desc="kills", disable=None) as bar:
            while found.kills.total() < kills:
                output = folder / f"out-{found.runs}"
                status: int | None = None
                while status is None:
                    how = chance.choice(SIGNALS)
                    seconds = None if found.kills.total() >= kills else chance.uniform(0, whole / 12)
                    status = ended(begun([*command, "-o", str(output)], log), seconds, how)
                    found.processes += 1
                    if status is None:
                        found.kills[how.name] += 1
                        bar.update()
                assert status == 0, log.read_text()[-3000:]
                compare(output, expected, found)
                found.runs += 1
        meets_full_disk(command, folder, expected, found)
        told = log.read_text().count("Going on with an interrupted run")
    click.echo(
        f"{users} users a run, {found.kills.total()} kills ({dict(found.kills)}) of {found.processes} processes in "
        f"{found.runs} runs of {whole:.1f} s; {told} processes went on with what was there\n"
        f"lines lost {found.lost}, doubled {found.doubled}; runs whose files differ {found.different}\n"
        f"a full disk in the middle: {found.full_disk}"
    )
    sys.exit(found.bad)


if __name__ == "__main__":
    main()
