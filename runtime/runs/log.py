"""The log of a run: what run it is, a mark for every complete window, and the batches of the window at hand; or, where
the output is a folder, its partitions.

A line is a record as JSON behind the beginning of its checksum. What is told of a run that was interrupted, before it
is gone on with, is told from here.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from ...catalog.bounds import DAMAGED, Size
from ...catalog.errors import SpecBeamError
from ...catalog.files import Frozen
from ...engines.bundle.model import ModelBundle
from .windows import Outcomes

JOURNAL_SCHEMA = 1
BLOCK = 1 << 20  # bytes that are read at a time
SEAL = 16  # hexadecimal digits of a checksum before every line of the log
ANEW = "pass --overwrite to begin anew, or choose another output"


class RunFacts(Frozen, frozen=True, tag="run"):
    """What a run's lines depend on: one that was interrupted is gone on with by one that has the same."""

    verb: str
    bundle: str  # the manifest's checksum
    engine: str
    read: dict[str, str | None]  # SHA-256 of each file by what it is for; None: a pipe
    options: dict[str, Any]
    overwrite: bool = False  # whether it may replace an output; one that goes on need not say so again
    schema_version: int = JOURNAL_SCHEMA


class Mark(Frozen, frozen=True, tag="mark"):
    """A window is complete."""

    entries: Size  # of the input, up to here
    results: Size  # bytes, up to here
    rejects: Size
    digests: tuple[str, str]  # SHA-256 of what the window added to each
    counts: dict[str, Any]  # up to here
    synced: bool  # everything up to here was on the disk when this was written
    complete: bool = False  # no window follows


class Batch(Frozen, frozen=True, tag="batch"):
    """Lines of a window that is not."""

    lines: list[tuple[int, bool, msgspec.Raw]]  # entry, whether it is a reject, the line
    counts: dict[str, Any]


class Part(Frozen, frozen=True, tag="part"):
    """A partition is complete, of a run whose output is a folder."""

    stream: Size  # of the input: a file, or several that are read as one
    number: Size  # in it
    results: Size  # bytes
    rejects: Size
    digests: tuple[str, str]  # SHA-256 of each
    counts: dict[str, Any]


Record = RunFacts | Mark | Batch | Part
Counts = TypeVar("Counts", bound=Outcomes)


class JournalFiles(NamedTuple):
    """Where a run's lines are until it is complete."""

    results: Path
    rejects: Path
    log: Path

    @classmethod
    def of(cls, output: Path) -> "JournalFiles":
        return cls(*(output.with_name(f"{output.name}.partial{ending}") for ending in ("", ".rejects", ".log")))


def output_kept_in(path: Path) -> Path | None:
    """The output of an interrupted run whose lines are kept in a file; None: of none."""
    for ending in (file.name[1:] for file in JournalFiles.of(path.with_name("_"))):
        output = path.with_name(path.name.removesuffix(ending)) if path.name.endswith(ending) else None
        if output and output != path and output.name and _first(JournalFiles.of(output).log) is not None:
            return output
    return None


def _first(log: Path) -> RunFacts | None:
    """What run a log is of."""
    first = next(records(log), (None, 0))[0] if log.is_file() else None
    return first if isinstance(first, RunFacts) else None


def engine_identity(bundle: ModelBundle, name: str) -> str:
    """An engine's name, and what its files hold; an engine of the torch backend has none but the bundle's."""
    if name not in bundle.engine_names():
        return name
    files = bundle.engine_facts(name).files
    return f"{name} {hashlib.sha256(msgspec.json.encode(files, order='sorted')).hexdigest()}"


def may_replace(output: Path) -> bool:
    """Whether an interrupted run was allowed to replace an output, or may itself have given it its name."""
    first = _first(JournalFiles.of(output).log)
    return completed(output) or (first is not None and first.overwrite)


def completed(output: Path) -> bool:
    """Whether an interrupted run had done all of its work, and was giving its files their names."""
    log = JournalFiles.of(output).log
    if not log.is_file():
        return False
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - BLOCK))
        lines = file.read().splitlines(keepends=True)
    last = _opened(lines[-1]) if lines else None
    return isinstance(last, Mark) and last.complete


def kept_requests(output: Path) -> int:
    """How many requests an interrupted run had tried."""
    paths, kept, later = JournalFiles.of(output), 0, 0
    for record, _ in records(paths.log) if paths.log.is_file() else ():
        if isinstance(record, Mark):
            kept, later = counted(record, Outcomes, paths).tried, 0
        elif isinstance(record, Batch | Part):
            later += counted(record, Outcomes, paths).tried
    return kept + later


def counted(record: Mark | Batch | Part, kind: type[Counts], paths: JournalFiles) -> Counts:
    try:
        return msgspec.convert(record.counts, kind)
    except DAMAGED as error:
        raise SpecBeamError(f"{paths.log} is damaged: {error}. Move it and {paths.results} away.") from error


_DECODER = msgspec.json.Decoder(Record)


def _seal(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest()[:SEAL].encode()


def sealed_record(record: Record) -> bytes:
    """A line of the log."""
    return sealed_line(msgspec.json.encode(record))


def sealed_line(data: bytes) -> bytes:
    """JSON as a line of the log, with the checksum that fits."""
    return b"%s %s\n" % (_seal(data), data)


def _opened(line: bytes) -> Record | None:
    """What a line of the log says; None where it was not written as it is."""
    seal, data = line[:SEAL], line[SEAL + 1 : -1]
    if not line.endswith(b"\n") or seal != _seal(data):
        return None
    try:
        record: Record = _DECODER.decode(data)
    except DAMAGED:
        return None
    return record


def records(log: Path) -> Iterator[tuple[Record, int]]:
    """The log's records up to the first that is none, and where each ends."""
    end = 0
    with log.open("rb") as file:
        for line in file:
            record = _opened(line)
            if record is None:
                return
            end += len(line)
            yield record, end


def synced_marks(log: Path) -> int:
    """How many of the log's marks say what was on the disk when the last of those that say so was written.

    Raises `SpecBeamError` where a line before that one is not as it was written: no failure of the machine does that.
    """
    number = synced = bad = 0
    with log.open("rb") as file:
        for place, line in enumerate(file, 1):
            record = _opened(line)
            bad = place if record is None and not bad else bad
            if not isinstance(record, Mark):
                continue
            number += 1
            synced = number if record.synced else synced
            if record.synced and bad:
                raise SpecBeamError(
                    f"{log}, line {bad}, is damaged, or was edited: what the interrupted run had done behind it cannot "
                    f"be told. Put back what was there to go on with it, {ANEW}."
                )
    return synced


def facts_left(paths: JournalFiles) -> RunFacts | None:
    """What run left files here; None where there are none. Raises `SpecBeamError` for files that do not tell."""
    if not any(path.exists() and path.stat().st_size for path in paths):
        return None
    if (first := _first(paths.log)) is not None:
        return first
    if not any(path.exists() and path.stat().st_size for path in paths[:2]) and _is_torn(paths.log):
        return None  # it ended before it had told what run it is
    raise SpecBeamError(
        f"{paths.results} is where interrupted runs keep their lines, but {paths.log.name} does not say which run: it "
        "is missing, damaged, or another version's. Move what is there away (--overwrite does not replace it), or "
        "choose another output."
    )


def _is_torn(log: Path) -> bool:
    """Whether a log is the beginning of its first line."""
    data = log.read_bytes() if log.is_file() and log.stat().st_size < BLOCK else b"\n"
    return re.fullmatch(rb'[0-9a-f]{0,16}|[0-9a-f]{16} (\{"type":"run".*)?', data[:64], re.DOTALL) is not None and (
        b"\n" not in data
    )


def check_same(left: RunFacts, facts: RunFacts, partial: Path) -> None:
    """Raise `SpecBeamError` unless an interrupted run was asked the same as this one."""
    pipes = [name for name, checksum in facts.read.items() if checksum is None]
    if pipes:
        raise SpecBeamError(
            f"{partial} is of an interrupted run, and the {pipes[0]} of this one come through a pipe, which cannot be "
            f"read twice: it does not go on. Move what is there away, {ANEW}."
        )
    facts = msgspec.json.decode(msgspec.json.encode(facts), type=RunFacts)  # numbers and lists as the log has them
    other = [name for name in ("verb", "bundle", "engine") if getattr(left, name) != getattr(facts, name)]
    other += [f"what is read: {name}" for name in _differing(left.read, facts.read)]
    other += [
        f"{name} ({left.options.get(name)}, now {facts.options.get(name)})"
        for name in _differing(left.options, facts.options)
    ]
    if other:
        raise SpecBeamError(
            f"{partial} is of an interrupted run that differs in: {', '.join(other)}. Run it as it was to go on with "
            f"it, {ANEW}."
        )


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
