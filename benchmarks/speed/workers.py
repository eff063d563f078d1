"""`infer` by several processes of one thread beside one process of as many threads: whole runs, in turns.

Run: python -m benchmarks.speed.workers [--users 1000] [--rounds 5] [--batch-size 8 1] [--workers 2] [--drafter none]
Each run is a process of its own, from its start to its end. Its users a second are those of the time beyond what a run
of one window takes, which is mostly opening. Processor time is that of all its processes; memory the most that they had
together, where a page that n of them share counts 1/n (PSS) for each. What others ran meanwhile is said: where that is
much, only processor time tells. The first run's output is what every other's must be, byte for byte.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tqdm import tqdm

from benchmarks.shared import arguments, dump, print_table, real_users
from specbeam.runtime.runs.windows import BATCHES_PER_WINDOW

SAMPLED = 0.1  # seconds between two looks at the memory


@dataclass
class Run:
    """What one run took."""

    seconds: float
    processor: float  # seconds of all its processes
    others: float  # share of all processors that went to anybody else
    pss: float  # MiB, the most of all its processes together
    private: float  # MiB of these that nobody shares


def busy() -> float:
    """Processor seconds that anybody has had since the machine began."""
    user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def memory(process: int) -> tuple[float, float]:
    """PSS and private MiB of a process and its children; of one that is about to end, nothing."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        told = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in (process, *children)]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    lines = [line.split() for each in told for line in each.splitlines()[1:]]
    kilobytes = [(name, int(size)) for name, size, _ in lines]
    private = sum(size for name, size in kilobytes if name.startswith("Private_"))
    return sum(size for name, size in kilobytes if name == "Pss:") / 1024, private / 1024


def run(command: list[str]) -> Run:
    """One process from its start to its end."""
    before, start, pss, private = busy(), time.monotonic(), 0.0, 0.0
    process = subprocess.Popen([sys.executable, "-m", "specbeam.cli", *command], stdout=subprocess.DEVNULL)
    done, status, usage = os.wait4(process.pid, os.WNOHANG)
    while not done:
        now = memory(process.pid)
        pss, private = max(pss, now[0]), max(private, now[1])
        time.sleep(SAMPLED)
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
    assert status == 0, status
    seconds, processor = time.monotonic() - start, usage.ru_utime + usage.ru_stime
    others = (busy() - before - processor) / seconds / (os.cpu_count() or 1)
    return Run(seconds, processor, max(others, 0.0), pss, private)


def write_histories(folder: Path, histories: list[list[str]]) -> Path:
    path = folder / f"{len(histories)}.jsonl"
    path.write_text("".join(json.dumps({"user": n, "items": items}) + "\n" for n, items in enumerate(histories)))
    return path


def measure(
    options: argparse.Namespace, batch: int, histories: list[list[str]], folder: Path
) -> list[dict[str, float]]:
    """Every round's figures of one process (first) and of several, by turns."""
    few = BATCHES_PER_WINDOW * batch
    files = [write_histories(folder, histories[:count]) for count in (few, few + options.users)]
    shared = ["--batch-size", str(batch), "--top-k", "20", "--overwrite", *drafting(options.drafter)]
    sides = [["--threads", str(options.workers)], ["--workers", str(options.workers), "--threads", "1"]]
    outputs = [folder / "one", folder / "several"]
    rounds = []
    for _ in tqdm(range(options.rounds), desc=f"batch {batch}", disable=None, leave=False):
        for side, output in zip(sides, outputs, strict=True):
            short, whole = (run(["infer", str(options.bundle), str(file), "-o", str(output), *shared, *side])
                            for file in files)  # fmt: skip
            rounds.append({
                "users_a_second": options.users / (whole.seconds - short.seconds),
                "processor_ms": 1000 * (whole.processor - short.processor) / options.users,
                "opening_seconds": short.seconds, "others": whole.others, "pss": whole.pss, "private": whole.private,
            })  # fmt: skip
        assert outputs[0].read_bytes() == outputs[1].read_bytes()
    return rounds


def drafting(drafter: str) -> list[str]:
    """So that no output depends on timing."""
    return ["--drafter", "none"] if drafter == "none" else ["--drafter", drafter, "--speculation", "fixed"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--drafter", default="none", choices=["none", "model"])


def main() -> None:
    options = arguments(__doc__, users=1000, more=add_options)
    _, histories, _ = real_users(options.data)
    rows, result = [], []
    for batch in options.batch_size:
        with tempfile.TemporaryDirectory() as folder:
            rounds = measure(options, batch, histories, Path(folder))
        one, several = rounds[::2], rounds[1::2]
        for name, side in ((f"1 process, {options.workers} threads", one), (f"{options.workers} processes", several)):
            figures = {key: median(each[key] for each in side) for key in side[0]}
            rows.append([batch, name, *figures.values()])
        ratios = [b["users_a_second"] / a["users_a_second"] for a, b in zip(one, several, strict=True)]
        processor = [b["processor_ms"] / a["processor_ms"] for a, b in zip(one, several, strict=True)]
        rows.append([batch, "ratio", median(ratios), median(processor), "", "", "", ""])
        result.append({"batch": batch, "ratios": ratios, "processor_ratios": processor, "one": one, "several": several})
    heads = ["batch", "", "users/s", "processor ms/user", "opening s", "others' share", "PSS MiB", "private MiB"]
    print_table(heads, rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
