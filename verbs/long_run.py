"""A run over files of any length: where its lines go, how it is stopped, and how it goes on."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, TypeVar, final

import click

from ..catalog.errors import OptionError
from .output import Bars, claim_outputs, rejecting, results_alone
from .values import Writing

if TYPE_CHECKING:
    from ..catalog.records import Reject
    from ..runtime.runs.journal import Journal
    from ..runtime.runs.log import RunFacts
    from ..runtime.runs.windows import Job, Outcomes, Sink, Stop

Entry = TypeVar("Entry")
Counts = TypeVar("Counts", bound="Outcomes")


@dataclass(frozen=True)
class Progress:
    """The bar of a run: what is counted, and how many of them there are."""

    unit: str
    total: int | None


def numbered(name: str, paths: Iterable[Entry]) -> dict[str, Entry]:
    """Files by what they are for, where several are for the same."""
    return {f"{name} {number}": path for number, path in enumerate(paths, 1)}


def pool_files(pool: object) -> dict[str, Path | None]:
    """The file that has the checksums of a pool's others; none for no pool."""
    from ..pools.files import POOL_FILE

    return {"pool": Path(pool) / POOL_FILE if isinstance(pool, str | Path) else None}


@final
class LongRun:
    """One verb's run: an output, or standard output, and the rejects."""

    def __init__(self, writing: Writing, inputs: list[Path]) -> None:
        """Hold the outputs; raises `SpecBeamError` where they may not be written."""
        from ..runtime.runs.inference import beside, check_outputs
        from ..runtime.runs.log import JournalFiles, may_replace

        output, overwrite, self._inputs = writing.output, writing.overwrite, inputs
        self.piped = str(output) == "-"
        self.output, self._overwrite = output, overwrite
        self.rejects = writing.rejects or (None if self.piped else beside(output, ".rejects.jsonl"))
        claim_outputs(output, self.rejects)
        if self.piped:
            check_outputs(output, self.rejects, inputs, overwrite)
            # From now on: nothing else may reach standard output.
            self._results: IO[bytes] = click.get_current_context().with_resource(results_alone())
            return
        kept = JournalFiles.of(output)
        for path in [*filter(None, [self.rejects]), *inputs]:
            if path.resolve() in [file.resolve() for file in kept]:
                raise OptionError(f"{path}: the run keeps its lines there until it is done. Choose another name.")
        check_outputs(output, self.rejects, inputs, overwrite or may_replace(output))

    def checksums(self, read: dict[str, Path | None], bars: Bars) -> dict[str, str | None]:
        """What each file of the run holds, by what it is for; none for a pipe. None: it has no such file."""
        from ..catalog.files import sha256
        from ..catalog.records import is_regular

        if self.piped:
            return {}
        paths = {name: path for name, path in read.items() if path is not None}
        total = sum(path.stat().st_size for path in paths.values() if is_regular(path))
        done, found = 0, dict[str, str | None]()

        def progress(size: int) -> None:
            nonlocal done
            done += size
            bars("bytes of input checked", done, total)

        for name, path in paths.items():
            found[name] = sha256(path, progress) if is_regular(path) else None
        return found

    @contextmanager
    def sink(self, facts: "RunFacts", counts: Counts, bars: Bars) -> Iterator["Sink[Counts]"]:
        """Where the lines go; says whether an interrupted run is gone on with."""
        from ..runtime.runs.inference import write_line
        from ..runtime.runs.journal import Journal
        from ..runtime.runs.log import JournalFiles
        from ..runtime.runs.windows import PipeSink
        from .overwrite import tell_interrupted

        if self.piped:
            with rejecting(self.rejects, overwrite=self._overwrite) as reject:
                yield PipeSink(counts, lambda line: write_line(self._results, line), reject)
                self._results.flush()
            return
        tell_interrupted(self.output, overwrite=self._overwrite)
        opened = Journal.open(
            self.output, facts, counts, overwrite=self._overwrite, warn=lambda told: click.echo(told, err=True),
            progress=lambda done, total: bars("bytes of results checked", done, total),
        )  # fmt: skip
        with opened as journal:
            if journal.entries or journal.earlier:
                click.echo(
                    f"Going on with an interrupted run: {journal.counts.served} served and {journal.counts.rejected} "
                    f"rejected are kept in {JournalFiles.of(self.output).results}; the input is read on from entry "
                    f"{journal.entries + 1}, and what is done of that window is not done again",
                    err=True,
                )
            yield journal

    def perform(
        self, job: "Job[Entry, Any, Any, Counts]", entries: "Iterable[Entry | Reject]", sink: "Sink[Counts]",
        bars: Bars, progress: Progress,
    ) -> None:  # fmt: skip
        """Do all of it; ends the process where that is asked for, between two batches."""
        from ..catalog.records import is_regular
        from ..runtime.runs.journal import Journal
        from ..runtime.runs.windows import serve

        journal = sink if isinstance(sink, Journal) else None
        if journal is not None and journal.complete:
            journal.finish(self._named_rejects)
            return
        earlier, ahead = sink.counts.tried, all(map(is_regular, self._inputs))
        try:
            with stopped_by_signals() as (stop, signals):
                ending = serve(
                    job, _passed(entries, sink.entries, bars), sink, stop=stop, ahead=ahead,
                    progress=lambda tried: bars(progress.unit, tried, progress.total, start=earlier),
                )  # fmt: skip
        except BaseException:
            if journal is not None:
                self._tell_how_to_go_on(journal)
            raise
        if ending == "stopped":
            if journal is not None:
                journal.sync()
            self._tell_how_to_go_on(journal)
            raise SystemExit(128 + signals[0])
        if journal is not None:
            journal.finish(self._named_rejects)

    @property
    def _named_rejects(self) -> Path:
        assert self.rejects is not None
        return self.rejects

    def _tell_how_to_go_on(self, journal: "Journal[Any] | None") -> None:
        if journal is None:
            click.echo("Not all was done: standard output holds the first requests, in the input's order.", err=True)
            return
        if not journal.counts.tried:
            return
        told = (
            "The input is a pipe: a run cannot go on"
            if journal.reads_pipe
            else f"Run the same command again{', without --overwrite,' * self._overwrite} to go on"
        )
        kept = f"{journal.counts.tried} requests are kept in {self.output}.partial"
        click.echo(f"Not all was done: {kept}. {told}", err=True)


def _passed(entries: "Iterable[Entry | Reject]", done: int, bars: Bars) -> "Iterator[Entry | Reject]":
    """The entries; a bar for those that are done and only read again."""
    entries = iter(entries)
    for number, entry in enumerate(islice(entries, done), 1):
        if number % 1024 == 0:
            bars("entries that are done", number, done)
        yield entry
    yield from entries


@contextmanager
def stopped_by_signals() -> "Iterator[tuple[Stop, list[int]]]":
    """Take SIGINT and SIGTERM as the wish to stop after the batch at hand; the second one acts as it would have.

    Yields what a run asks, and the signals that came.
    """
    from ..runtime.runs.windows import Stop

    stop, came = Stop(), list[int]()
    if current_thread() is not main_thread():
        yield stop, came
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for known, handler in before.items():
            signal.signal(known, handler)
        with suppress(OSError):  # past Python's buffers, in which the run may be at this moment
            os.write(2, b"Stopping after the batch at hand; once more stops at once.\n")
        stop.ask()

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop, came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
