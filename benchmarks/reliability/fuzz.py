"""Every reader and loader on mutated inputs, for a bounded time: an answer or one of our errors, or it is a finding.

Run: python -m benchmarks.reliability.fuzz [--inputs 20000] [--minutes 60] [--seed 0] [--target NAME]...
    [--output fuzz-failures]
Again with one input: python -m benchmarks.reliability.fuzz --target NAME --replay FILE
By coverage, where atheris is installed: python -m benchmarks.reliability.fuzz --guided

Prints a table and writes it to report.json in the output's folder, beside every input that went wrong. Each target
runs in a process of its own, so that a library's crash is a finding and not the end. Exits with 1 where there is one.
"""

import json
import os
import re
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice, takewhile
from multiprocessing import connection, get_context
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

os.environ.update(RUST_BACKTRACE="0", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")  # before what reads them

if __name__ == "__main__" and "--guided" in sys.argv:  # before our code is imported, which it counts the branches of
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: nothing was done. Run: pip install atheris, or leave --guided out.")
    atheris.instrument_imports(include=["specbeam"]).__enter__()

from fuzzing import Finding, Report, drawn, fuzz

if TYPE_CHECKING:
    from benchmarks.reliability.fuzz_mutations import Target

SILENT = 60.0  # seconds without an answer, after which a library hangs that no signal of ours ends
CRASHES = 10  # of one target; then it is left
KEPT = 5  # inputs of each kind of finding
FORK = get_context("fork")
Counts = Sequence[int]  # inputs, accepted, refused: shared with the process that counts them


def all_targets(folder: Path) -> dict[str, "Target"]:
    """Every reader and loader, by name, the quick ones first; each on files of its own."""
    from benchmarks.reliability.fuzz_artifacts import Artifacts, artifact_targets
    from benchmarks.reliability.fuzz_checkpoints import Checkpoints, checkpoint_targets
    from benchmarks.reliability.fuzz_graphs import graph_targets
    from benchmarks.reliability.fuzz_journal import journal_targets
    from benchmarks.reliability.fuzz_pools import other_targets, pool_targets
    from benchmarks.reliability.fuzz_readers import reader_targets
    from benchmarks.reliability.fuzz_training import training_targets
    from tiny_models import make_text_tokenizer

    made = Artifacts(folder / "model")
    tokenizer = make_text_tokenizer().backend_tokenizer.to_str().encode()
    checkpoints = Checkpoints(folder / "checkpoints")
    groups = {
        "reader": reader_targets(folder / "readers"),
        "artifact": [
            *artifact_targets(folder / "bundle"),
            *pool_targets(folder / "pools", made.catalog, made.trie),
            *other_targets(folder / "others", made.trie, tokenizer),
            *journal_targets(folder / "journal"),
        ],
        "checkpoint": checkpoint_targets(checkpoints, whole=False),
        "graph": graph_targets(folder / "graphs"),
        "training": training_targets(folder / "training"),
        "whole checkpoint": checkpoint_targets(checkpoints, whole=True),
    }
    return {f"{group}: {target.name}": target for group, targets in groups.items() for target in targets}


def run(target: "Target", inputs: int, seconds: float, seed: int, show: Callable[[int], None], guided: bool) -> Report:
    """Inputs from a seed until there are so many or the time is over; what crashes or hangs is passed over."""
    total, end, crashes = Report(), time.monotonic() + seconds, 0
    while total.inputs < inputs and time.monotonic() < end and crashes < CRASHES:
        counts = RawArray("q", 3)
        receiver, sender = FORK.Pipe(duplex=False)
        job = _guided if guided else _mutated
        process = FORK.Process(target=job, args=(target, inputs, total.inputs, end, seed, counts, sender))
        process.start()
        sender.close()
        findings, peak, fault = _watched(process, receiver, counts, lambda n, before=total.inputs: show(before + n))
        done, accepted, refused = counts
        if fault:
            crashes += 1
            data = b"" if guided else next(islice(target.inputs(inputs, seed), total.inputs + done, None), b"")
            done, findings = done + 1, [*findings, Finding(data, fault)]
        total.add(Report(done, accepted, refused, findings, peak=peak))
        if guided:
            break
    total.seconds = seconds - (end - time.monotonic())
    return total


def _mutated(
    target: "Target", inputs: int, skip: int, end: float, seed: int, counts: Any, sender: connection.Connection
) -> None:
    _quietly()

    some = islice(target.inputs(inputs, seed), skip, None)
    some = takewhile(lambda _: time.monotonic() < end, some)
    report = fuzz(target.use, some, progress=lambda report: _tell(report, counts, sender))
    sender.send(report.peak)


def _tell(report: Report, counts: Any, sender: connection.Connection) -> None:
    """Count, and hand over what was found: the process may not live to do it later."""
    counts[:] = (report.inputs, report.accepted, report.refused)
    while report.findings:
        sender.send(report.findings.pop())


def _guided(
    target: "Target", inputs: int, skip: int, end: float, seed: int, counts: Any, sender: connection.Connection
) -> None:
    """Inputs that atheris makes of those of the mutator, by what they reach in our code."""
    import atheris

    _quietly()
    total = Report()

    def use(data: bytes) -> None:
        total.add(fuzz(target.use, [data]))
        _tell(total, counts, sender)
        if total.inputs == inputs or time.monotonic() > end:
            sender.send(total.peak)
            os._exit(0)  # atheris itself never returns

    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(islice(target.inputs(inputs, seed), 100)):
            (Path(corpus) / str(number)).write_bytes(data)
        atheris.Setup([sys.argv[0], corpus, f"-seed={seed + 1}", "-timeout=0", "-rss_limit_mb=0"], use)
        atheris.Fuzz()


def _quietly() -> None:
    """Without libraries' traces of what is caught, which would be as many as inputs."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _watched(
    process: Any, receiver: connection.Connection, counts: Counts, show: Callable[[int], None]
) -> tuple[list[Finding], int, str]:
    """What a process found, the bytes that it grew by, and what ended it before its time, if anything did."""
    found: list[Finding] = []
    done, since, fault = -1, time.monotonic(), ""
    with suppress(EOFError):  # it has died
        while True:
            if receiver.poll(0.2):
                told = receiver.recv()
                if not isinstance(told, Finding):
                    process.join()
                    return found, told, ""
                found.append(told)
            if counts[0] != done:
                done, since = counts[0], time.monotonic()
                show(done)
            elif time.monotonic() - since > SILENT:
                process.kill()
                fault = "hang"
    process.join()
    return found, 0, fault or f"crash: exit status {process.exitcode}"


class Results:
    """What became of every target, on the screen and in a folder."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, report: Report) -> None:
        """Count a target, and keep its inputs that went wrong with the command that gives one again."""
        self.rows.append({
            "target": name, "inputs": report.inputs, "accepted": report.accepted, "refused": report.refused,
            "foreign": len(report.findings) - report.hangs, "hangs": report.hangs, "seconds": round(report.seconds, 1),
            "grew_mb": report.peak >> 20, "kinds": report.kinds(),
        })  # fmt: skip
        kept: dict[str, int] = {}
        for finding in report.findings:
            kept[finding.error] = kept.get(finding.error, 0) + 1
            if kept[finding.error] <= KEPT:
                self._keep(name, finding, sum(kept.values()))
        self.write()

    def _keep(self, name: str, finding: Finding, number: int) -> None:
        file = self.folder / f"{re.sub(r'[^a-z0-9.]+', '-', name.lower())}-{number}"
        file.write_bytes(finding.data)
        again = shlex.join(["python", "-m", "benchmarks.reliability.fuzz", "--target", name, "--replay", str(file)])
        file.with_name(f"{file.name}.txt").write_text(f"{finding.error}\n{again}\n")

    def write(self) -> None:
        """report.json, after every target: a run that is stopped has told what it did."""
        content = {**self.settings, "total": self.total(), "targets": self.rows}
        (self.folder / "report.json").write_text(json.dumps(content, indent=1) + "\n")

    def total(self) -> dict[str, float]:
        """Sums over all targets."""
        names = ("inputs", "accepted", "refused", "foreign", "hangs", "seconds")
        return {name: sum(row[name] for row in self.rows) for name in names}

    def table(self) -> Iterator[str]:
        """Markdown, a target a line."""
        names = ("inputs", "accepted", "refused", "foreign", "hangs", "seconds")
        yield f"| target | {' | '.join(names)} |"
        yield "|---" * (len(names) + 1) + "|"
        for row in (*self.rows, {"target": "all", **self.total()}):
            yield f"| {row['target']} | {' | '.join(f'{row[name]:,.0f}' for name in names)} |"
            for kind, count in row.get("kinds", {}).items():
                yield f"    {count} x {kind}"


@click.command()
@click.option("--inputs", default=20_000, show_default=True, type=click.IntRange(1), help="Of each target, at most.")
@click.option("--minutes", default=60.0, show_default=True, type=click.FloatRange(0, min_open=True), help="In all.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same inputs.")
@click.option("--target", "names", multiple=True, help="Targets whose names begin so (default: all).")
@click.option("--output", default="fuzz-failures", show_default=True, type=click.Path(path_type=Path))
@click.option("--guided", is_flag=True, help="Inputs by coverage (needs atheris) instead of the mutator's.")
@click.option("--replay", type=click.Path(path_type=Path, exists=True), help="One input for one target; errors show.")
def main(
    inputs: int, minutes: float, seed: int, names: tuple[str, ...], output: Path, guided: bool, replay: Path | None
) -> None:
    """Feed every reader and loader changed inputs."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        targets = {k: t for k, t in all_targets(Path(folder)).items() if not names or k.startswith(names)}
        if not targets:
            raise click.UsageError(f"No target's name begins with {' or '.join(names)}.")
        if replay is not None:
            with warnings.catch_warnings():
                print(next(iter(targets.values())).use(replay.read_bytes()))
            return
        output.mkdir(parents=True, exist_ok=True)
        results = Results(output, {"seed": seed, "inputs_each": inputs, "minutes": minutes, "guided": guided})
        drawn(seed)  # once, for every target's process
        end = time.monotonic() + 60 * minutes
        with tqdm(total=inputs * len(targets), unit="input", disable=None) as bar:
            for number, (name, target) in enumerate(targets.items()):
                bar.set_description(name)
                left = end - time.monotonic()
                share = 2 * left / (len(targets) - number + 1)  # twice its part, as the quick ones come first
                before = bar.n
                results.add(
                    name, run(target, inputs, share, seed, lambda n, b=before: bar.update(b + n - bar.n), guided)
                )
                bar.update(before + inputs - bar.n)
    print("\n".join(results.table()))
    print(f"Seed {seed}. The table and what went wrong are in {output}.")
    sys.exit(any(row["foreign"] or row["hangs"] for row in results.rows))


if __name__ == "__main__":
    main()
