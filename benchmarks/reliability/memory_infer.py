"""The peak memory of `specbeam infer` on very many users, over a tiny pair of models.

Run: python -m benchmarks.reliability.memory_infer [--users 200000] [--bundle DIR]
Makes a tiny bundle (or takes one whose catalog has the items 0 to 39), writes the users, runs the command, and asks
for its peak of resident memory once a tenth of the lists are written and at the end. Exit 1 where it grew by over 5 %.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click

from tiny_bundle import build_tiny

EVERY = 0.05  # seconds between two looks at a process


def peaks(command: list[str], output: Path, users: int, tell: Callable[[int], None]) -> tuple[float, float]:
    """Peak memory (MB) of a command when it has written a tenth of the users' lines, and before it ends."""
    early = peak = 0.0
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        lines, place = 0, 0
        while process.poll() is None:
            time.sleep(EVERY)
            peak = max(peak, peak_of(process.pid))
            counted, place = lines_after(output, place)
            lines += counted
            early = early or (peak if lines >= users / 10 else 0.0)
            tell(lines)
    if process.returncode or lines + lines_after(output, place)[0] != users:
        raise SystemExit(f"{' '.join(command)}: exit {process.returncode}, {lines} of {users} lines")
    return early, peak


def peak_of(process: int) -> float:
    """Its peak of resident memory so far (MB); 0 where it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def lines_after(output: Path, place: int) -> tuple[int, int]:
    """How many lines were written to the output (or to what becomes it) behind a place, and where they end now."""
    for path in (output.with_name(f"{output.name}.partial"), output):
        with suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(place)
            new = file.read()
            return new.count(b"\n"), place + len(new)
    return 0, place


@click.command()
@click.option("--users", default=200_000, show_default=True, type=click.IntRange(100))
@click.option("--bundle", type=click.Path(path_type=Path), help="Default: a tiny one, made for this.")
@click.option("--batch-size", default=64, show_default=True)
def main(users: int, bundle: Path | None, batch_size: int) -> None:
    """Serve very many users; exit 1 where memory grows by more than 5 %."""
    from tqdm import tqdm

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle = bundle or build_tiny(folder)
        histories, output = folder / "histories.jsonl", folder / "out" / "recs.jsonl"
        output.parent.mkdir()
        with histories.open("w") as file:
            for user in range(users):
                items = [str((user * 7 + i * 11) % 40) for i in range(1 + user % 9)]
                file.write(json.dumps({"user": f"u{user}", "items": items}) + "\n")
        command = [sys.executable, "-m", "specbeam.cli", "infer", str(bundle), str(histories)]
        command += ["--output", str(output), "--top-k", "5", "--threads", "1", "--batch-size", str(batch_size)]
        with tqdm(total=users, unit="user", disable=None) as bar:
            early, peak = peaks(command, output, users, lambda done: bar.update(done - bar.n))
    print(f"| users | peak at a tenth (MB) | peak at the end (MB) | ratio |\n|---|---|---|---|\n"
          f"| {users:,} | {early:.0f} | {peak:.0f} | {peak / early:.3f} |")  # fmt: skip
    sys.exit(peak > 1.05 * early)


if __name__ == "__main__":
    main()
