"""A run that is spread over a Ray cluster: its output is a folder of partitions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar, final

import click

from ..catalog.errors import OptionError, SpecBeamError
from .long_run import stopped_by_signals
from .output import Bars, claim_outputs
from .values import Cluster, Writing

if TYPE_CHECKING:
    from ..catalog.histories.storage import Place
    from ..cluster.asked import ClusterRun, Failed, Needs, Outcome
    from ..cluster.reading import Input
    from ..engines.bundle.model import ModelBundle
    from ..runtime.runs.log import RunFacts
    from ..runtime.runs.partition import Opens
    from ..runtime.runs.parts import PartFolder
    from ..runtime.runs.windows import Outcomes

Counts = TypeVar("Counts", bound="Outcomes")
SHOWN = 3  # partitions that failed, in a message


@final
class FolderRun:
    """One verb's run: an output that is a folder."""

    piped = False

    def __init__(self, writing: Writing, cluster: Cluster, inputs: "Sequence[Place]") -> None:
        """Hold the output; raises `SpecBeamError` where it may not be written."""
        from ..catalog.histories.storage import SCHEME
        from ..catalog.records import STDIN

        self.output, self._overwrite, self._cluster = writing.output, writing.overwrite, cluster
        self.rejects = self.output
        if self.output == STDIN or not self.output.name or SCHEME.match(str(self.output).replace(":/", "://", 1)):
            raise OptionError(f"--output {self.output}: with --ray, expected the name of a folder to make.")
        if writing.rejects is not None:
            raise OptionError("--rejects: with --ray they lie beside the results, in OUTPUT. Leave it out.")
        if STDIN in inputs:
            raise OptionError("with --ray standard input is not read; expected files, folders or URIs.")
        for path in inputs:
            if isinstance(path, Path) and _overlap(path.resolve(), self.output.resolve()):
                raise SpecBeamError(
                    f"{path} is an input, and one of it and the output is in the other. Choose another."
                )
        claim_outputs(self.output)

    def checksums(self, read: "dict[str, Place | None]", bars: Bars) -> dict[str, str | None]:
        """What each file of the run holds, by what it is for; of one in object storage: its size and time."""
        from ..catalog.files import sha256
        from ..catalog.histories.storage import Remote

        places = {name: place for name, place in read.items() if place is not None}
        total = sum(place.stat().st_size for place in places.values() if isinstance(place, Path))
        done, found = 0, dict[str, str | None]()

        def progress(size: int) -> None:
            nonlocal done
            done += size
            bars("bytes of input checked", done, total)

        for name, place in places.items():
            found[name] = place.identity() if isinstance(place, Remote) else sha256(place, progress)
        return found

    def perform(
        self, facts: "RunFacts", counts: Counts, stats: Any, opens: "Opens", input: "Input", nodes: "NodeSide",
        workers: int | None, bars: Bars,
    ) -> tuple[Counts, int]:  # fmt: skip
        """Do all of it. Returns what happened to all requests, and how many had been served before.

        stats: what those of this run are added to. Raises `SpecBeamError` where a partition cannot be done: what is
        done is kept.
        """
        from ..cluster.asked import ClusterRun
        from ..runtime.runs.log import JournalFiles
        from ..runtime.runs.parts import PartFolder
        from .overwrite import tell_interrupted, tell_losses

        tell_interrupted(self.output, overwrite=self._overwrite)
        tell_losses(self.output, "parts.json", overwrite=self._overwrite)
        opened = PartFolder.open(
            self.output, facts, counts, overwrite=self._overwrite,
            progress=lambda done, total: bars("bytes of results checked", done, total),
        )  # fmt: skip
        with opened as folder:
            earlier = folder.counts.served
            if folder.complete:
                return folder.counts, earlier
            kept = JournalFiles.of(self.output)
            if folder.done:
                click.echo(
                    f"Going on with an interrupted run: {len(folder.done)} partitions with {folder.counts.served} "
                    f"served and {folder.counts.rejected} rejected are kept in {kept.results}",
                    err=True,
                )
            run = ClusterRun(
                self._cluster.ray_address, workers, nodes.needs, opens, input, nodes.files,
                frozenset(folder.done), kept.log.with_suffix(".ray"),
            )  # fmt: skip
            try:
                failed = _follow(run, folder, stats, bars)
            finally:
                if run.log.exists() and not run.log.stat().st_size:  # Ray had nothing to say
                    run.log.unlink()
            if failed:
                raise SpecBeamError(_told(failed, input.names, len(folder.done), kept.results))
            run.log.unlink(missing_ok=True)
            folder.finish(input.names, input.partition)
            return folder.counts, earlier


def _overlap(input: Path, output: Path) -> bool:
    return output in (input, *input.parents) or input in output.parents


@dataclass(frozen=True)
class NodeSide:
    """What a worker takes of its node, and what must be there."""

    needs: "Needs"
    files: dict[Path, str]  # SHA-256 by absolute path

    @classmethod
    def of(cls, bundle: "ModelBundle", engine: str, threads: int, pool: object) -> "NodeSide":
        """For an engine, and the folder of a pool, if there is one."""
        from ..cluster.asked import Needs
        from ..engines.bundle.names import EngineName

        device = bundle.engine_facts(engine).device if engine in bundle.engine_names() else EngineName.of(engine).device
        return cls(Needs(threads, int(device != "cpu")), _files(bundle, engine, pool))


def _files(bundle: "ModelBundle", engine: str, pool: object) -> dict[Path, str]:
    """The files that tell the bundle, the engine and the pool from others: they have the checksums of all others."""
    from ..catalog.files import sha256
    from ..engines.bundle.facts import ENGINE_FACTS
    from ..engines.bundle.model import MANIFEST
    from ..pools.files import POOL_FILE

    files = [bundle.path / MANIFEST]
    if engine in bundle.engine_names():
        files.append(bundle.path / "engines" / engine / ENGINE_FACTS)
    if isinstance(pool, str | Path):
        files.append(Path(pool) / POOL_FILE)
    return {path.absolute(): sha256(path) for path in files}


def _follow(run: "ClusterRun", folder: "PartFolder[Any]", stats: Any, bars: Bars) -> "list[Failed]":
    """Take what comes; returns what could not be done. Ends the process where that is asked for."""
    from ..cluster.asked import Failed
    from ..cluster.run import outcomes as outcomes_of
    from ..runtime.runs.windows import StopAsked

    failed, told = list[Failed](), _Told(folder, stats, bars)
    try:
        with stopped_by_signals() as (stop, signals), outcomes_of(run, stop) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, Failed):
                    failed.append(outcome)
                else:
                    told(outcome)
    except BaseException as error:
        if folder.done:
            click.echo(
                f"Not all was done: {folder.counts.tried} requests of {len(folder.done)} partitions are kept in "
                f"{folder.kept}. Run the same command again to go on",
                err=True,
            )
        if isinstance(error, StopAsked):
            raise SystemExit(128 + signals[0]) from None
        raise
    return failed


@final
class _Told:
    """What is shown and kept of what comes."""

    def __init__(self, folder: "PartFolder[Any]", stats: Any, bars: Bars) -> None:
        self._folder, self._stats, self._bars = folder, stats, bars
        self._start, self._earlier, self._total = perf_counter(), folder.counts.tried, "?"
        self._began = False

    def __call__(self, outcome: "Outcome") -> None:
        from ..cluster.asked import Started, Total
        from ..runtime.runs.partition import Done

        if isinstance(outcome, Started):
            room = "" if outcome.workers <= outcome.room else f", of which {outcome.room} have room now"
            click.echo(
                f"Ray: {outcome.nodes} nodes, {outcome.workers} workers{room}; connected and checked after "
                f"{perf_counter() - self._start:.1f} s",
                err=True,
            )
        elif isinstance(outcome, Total):
            self._total = str(outcome.partitions)
        elif isinstance(outcome, Done):
            if not self._began:
                self._began = True
                seconds = perf_counter() - self._start - outcome.seconds
                click.echo(f"start-up: the first partition began after {seconds:.1f} s", err=True)
            for warning in outcome.warnings:
                click.echo(warning, err=True)
            self._folder.add(outcome)
            self._stats.merge(outcome.stats)
        done = f"{len(self._folder.done)} of {self._total} partitions"
        self._bars("requests", self._folder.counts.tried, None, start=self._earlier, note=done)


def _told(failed: "list[Failed]", names: list[list[str]], done: int, kept: Path) -> str:
    shown = [
        f"{names[each.stream][0]}{'' if each.number is None else f', partition {each.number}'}: {each.reason}"
        for each in failed[:SHOWN]
    ]
    more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
    return (
        f"{len(failed)} of the partitions could not be done, though they were tried again: {'; '.join(shown)}{more}. "
        f"The {done} others are kept in {kept}: mend that, and run the same command again to go on."
    )
