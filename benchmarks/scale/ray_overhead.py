"""`infer --ray` on one machine beside `infer` with as many worker processes: whole runs, in turns.

Run: python -m benchmarks.scale.ray_overhead [--users 20000] [--rounds 1] [--workers 2] [--drafter model]
Real users, repeated. Each run is a process of its own, from its start to its end; what a user costs is that of the
users beyond a run of one window, so that neither starting nor ending is in it. Processor time is that of all processes
below the run's, Ray's own included. Every run's results must be the same bytes. Start-up is what the verb says of it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from tqdm import tqdm

from benchmarks.shared import arguments, dump, print_table, real_users
from specbeam.runtime.runs.windows import BATCHES_PER_WINDOW

SAMPLED = 0.25  # seconds between two looks at the processes
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Run:
    """What one run took."""

    seconds: float
    processor: float  # seconds of all its processes
    load: float  # processes that wanted to run on this machine, at its end
    startup: float  # seconds until the first partition began; 0 where it does not say


def processor(root: int, seen: dict[int, float]) -> None:
    """Note the processor seconds that each process at or below one has had; those that ended stay as last seen."""
    children, spent = defaultdict(list), {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                children[int(fields[1])].append(int(folder.name))
                spent[int(folder.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    below = [root]
    while below:
        pid = below.pop()
        seen[pid] = max(seen.get(pid, 0.0), spent.get(pid, 0.0))
        below += children[pid]


def run(command: list[str]) -> Run:
    """One process from its start to its end."""
    start, seen = time.monotonic(), dict[int, float]()
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen([sys.executable, "-m", "specbeam.cli", *command], stdout=told, stderr=told)
        while process.poll() is None:
            processor(process.pid, seen)
            time.sleep(SAMPLED)
        seconds = time.monotonic() - start
        told.seek(0)
        text = told.read()
    assert process.returncode == 0, text
    begun = re.search(r"first partition began after ([0-9.]+) s", text)
    return Run(seconds, sum(seen.values()), os.getloadavg()[0], float(begun[1]) if begun else 0.0)


def write_histories(path: Path, histories: list[list[str]], count: int) -> Path:
    lines = (json.dumps({"user": n, "items": items}) + "\n" for n, items in enumerate(islice(cycle(histories), count)))
    path.write_text("".join(lines))
    return path


def results(output: Path) -> bytes:
    if output.is_dir():
        return b"".join(part.read_bytes() for part in sorted(output.glob("part-*.jsonl")))
    return output.read_bytes()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--drafter", default="model", choices=["none", "model"])


def measure(options: argparse.Namespace, histories: list[list[str]], folder: Path) -> list[tuple[Run, Run]]:
    """(a run of one window, a whole one) of each side, by turns: plain, Ray, plain, ..."""
    few = BATCHES_PER_WINDOW * options.batch_size
    files = [write_histories(folder / f"{count}.jsonl", histories, count) for count in (few, few + options.users)]
    shared = ["--batch-size", str(options.batch_size), "--top-k", "20", "--workers", str(options.workers)]
    shared += ["--threads", "1", "--overwrite", "--drafter", options.drafter]
    shared += ["--speculation", "fixed"] if options.drafter != "none" else []
    outputs, found = [folder / "plain", folder / "ray"], []
    for _ in tqdm(range(options.rounds), disable=None, leave=False):
        for output, more in zip(outputs, ([], ["--ray", "--ray-address", "local"]), strict=True):
            found.append(tuple(
                run(["infer", str(options.bundle), str(file), "-o", str(output), *shared, *more]) for file in files
            ))  # fmt: skip
            print(json.dumps([asdict(each) for each in found[-1]]), file=sys.stderr, flush=True)
        assert results(outputs[0]) == results(outputs[1])
    return found


def main() -> None:
    options = arguments(__doc__, users=20_000, more=add_options)
    _, histories, _ = real_users(options.data)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, histories, Path(folder))
    sides = {"infer --workers": found[::2], "infer --ray --workers": found[1::2]}
    rows, figures = [], {}
    for name, runs in sides.items():
        wall = [1000 * (whole.seconds - short.seconds) / options.users for short, whole in runs]
        spent = [1000 * (whole.processor - short.processor) / options.users for short, whole in runs]
        opening = median(short.seconds for short, _ in runs)
        rows.append([name, median(wall), median(spent), opening, median(w.startup for _, w in runs)])
        figures[name] = {"wall": wall, "processor": spent}
    plain, spread = figures.values()
    ratios = [[b / a for a, b in zip(plain[key], spread[key], strict=True)] for key in ("wall", "processor")]
    rows.append(["ratio", *map(median, ratios), "", ""])
    print_table(["", "ms/user", "processor ms/user", "a run of one window, s", "start-up told, s"], rows)
    dump(options.output, {"ratios": ratios, "runs": [[asdict(each) for each in pair] for pair in found]})


if __name__ == "__main__":
    main()
