"""A long run's lines as they come, kept so that a run that was interrupted goes on where it stopped.

OUTPUT.partial holds the results of all complete windows in the input's order, and becomes OUTPUT; their rejects are in
OUTPUT.partial.rejects. The first line of OUTPUT.partial.log says what run it is; behind it stands a mark for every
window, with the checksum of what the window added to the two files, and then the batches of the window at hand: when
that is complete, its mark takes their place. Only this window is held in memory.
"""

import filecmp
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, final

import msgspec
from msgspec.structs import replace

from ..catalog.bounds import DAMAGED, Size
from ..catalog.claims import claim
from ..catalog.disk import told_if_full
from ..catalog.errors import OutputTakenError, SpecBeamError
from ..catalog.files import Frozen, place_file, whole_file
from ..catalog.records import RejectLine
from ..engines.bundle import ModelBundle
from .windows import Outcomes, Sink

JOURNAL_SCHEMA = 1
SYNC_SECONDS = 5.0  # what a power failure may cost; what ends the process alone costs a batch at most
BLOCK = 1 << 20  # bytes
SEAL = 16  # hexadecimal digits of a checksum before every line of the log
NOTHING = hashlib.sha256().hexdigest()
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


class _Mark(Frozen, frozen=True, tag="mark"):
    """A window is complete."""

    entries: Size  # of the input, up to here
    results: Size  # bytes, up to here
    rejects: Size
    digests: tuple[str, str]  # SHA-256 of what the window added to each
    counts: dict[str, Any]  # up to here
    synced: bool  # everything up to here was on the disk when this was written
    complete: bool = False  # no window follows


class _Batch(Frozen, frozen=True, tag="batch"):
    """Lines of a window that is not."""

    lines: list[tuple[int, bool, msgspec.Raw]]  # entry, whether it is a reject, the line
    counts: dict[str, Any]


Record = RunFacts | _Mark | _Batch
Counts = TypeVar("Counts", bound=Outcomes)


class JournalFiles(NamedTuple):
    """Where a run's lines are until it is complete."""

    results: Path
    rejects: Path
    log: Path

    @classmethod
    def of(cls, output: Path) -> "JournalFiles":
        return cls(*(output.with_name(f"{output.name}.partial{ending}") for ending in ("", ".rejects", ".log")))


@final
class Journal(Sink[Counts]):
    """A run's lines in files beside its output; see the module's text."""

    def __init__(
        self, output: Path, facts: RunFacts, counts: Counts, files: list["_File"], warn: Callable[[str], None]
    ) -> None:
        self.counts, self.entries, self.earlier = counts, 0, 0  # earlier: requests that were tried by earlier runs
        self.complete = self._rejects_placed = False
        self._output, self._paths, self._facts, self._warn = output, JournalFiles.of(output), facts, warn
        self._results, self._rejects, self._log = files
        self._window: dict[int, tuple[bool, bytes]] = {}
        self._marked = 0  # bytes of the log, up to and with its last mark
        self._synced = time.monotonic()

    @classmethod
    @contextmanager
    def open(
        cls,
        output: Path,
        facts: RunFacts,
        counts: Counts,
        *,
        overwrite: bool,
        warn: Callable[[str], None],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator["Journal[Counts]"]:
        """Begin, or (without `overwrite`) go on with what an interrupted run left: `entries` says from where.

        counts: of nothing yet. `warn` is told what of an interrupted run is made again, `progress` how many bytes of
        it have been looked at. Raises `SpecBeamError` where another run is at it, was interrupted with other facts, or
        left files that were edited since.
        """
        paths = JournalFiles.of(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        with claim(output), told_if_full(output), ExitStack() as stack:
            left = _facts_left(paths)
            if left is not None and not overwrite:
                _check_same(left, facts, paths.results)
            # It may have ended between the last two steps: then the results have their name, and are looked at there.
            placed = completed(output) and not paths.results.exists() and output.is_file()
            results = output if placed and not overwrite else paths.results
            rejects_placed = placed and not paths.rejects.exists()
            files = [stack.enter_context(_File.open(path)) for path in (results, paths.rejects, paths.log)]
            if left is None or overwrite:
                journal = cls(output, replace(facts, overwrite=overwrite), counts, files, warn)
                journal._begin()
            else:
                journal = cls(output, replace(facts, overwrite=left.overwrite), counts, files, warn)
                journal._rejects_placed = rejects_placed
                journal._recover(progress, placed=placed)
            try:
                yield journal
            finally:
                journal._leave()

    def has(self, number: int) -> bool:
        return number in self._window

    def keep(self, lines: Mapping[int, msgspec.Struct], counts: Counts) -> None:
        encoded = {n: (isinstance(line, RejectLine), msgspec.json.encode(line)) for n, line in lines.items()}
        entries = [(n, rejected, msgspec.Raw(line)) for n, (rejected, line) in encoded.items()]
        self._log.append(_sealed(_Batch(lines=entries, counts=msgspec.to_builtins(counts))))
        self._window |= encoded
        self.counts.add(counts)

    def close_window(self, entries: int) -> None:
        lines = [line for _, line in sorted(self._window.items())]
        added = [b"".join(line + b"\n" for rejected, line in lines if rejected is which) for which in (False, True)]
        for file, data in zip((self._results, self._rejects), added, strict=True):
            file.append(data)
        self._window.clear()
        self.entries = entries
        self._mark(added, synced=time.monotonic() - self._synced > SYNC_SECONDS)

    def results(self) -> Iterator[bytes]:
        """The results that are there, a line of JSON each."""
        with self._paths.results.open("rb") as file:
            yield from file
        yield from (line for _, (rejected, line) in sorted(self._window.items()) if not rejected)

    @property
    def overwrite(self) -> bool:
        """Whether the output may take the place of another one."""
        return self._facts.overwrite

    @property
    def reads_pipe(self) -> bool:
        """Whether some of what the run reads comes through a pipe, which cannot be read twice."""
        return None in self._facts.read.values()

    def sync(self) -> None:
        """All that is kept is on the disk, whatever happens to the machine."""
        for file in (self._results, self._rejects, self._log):
            file.sync()

    def finish(self, rejects: Path) -> None:
        """Give results and rejects their names; a file of nothing there is none.

        Raises `OutputTakenError` where one of the names was taken meanwhile; the lines are kept beside it.
        """
        if not self.complete:
            self._mark([b"", b""], synced=True, complete=True)
        taken: OutputTakenError | None = None
        try:
            self._place_rejects(rejects, overwrite=self.overwrite)
        except OutputTakenError as error:  # the results are complete all the same
            taken = error
        try:
            self._place_results(overwrite=self.overwrite)
        except OutputTakenError as error:
            taken = error
        for path in self._paths:
            path.unlink(missing_ok=True)
        if taken is not None:
            raise taken

    def _place_rejects(self, path: Path, *, overwrite: bool) -> None:
        part = self._paths.rejects
        if self._rejects_placed:
            return
        if not self._rejects.size:
            if overwrite:
                path.unlink(missing_ok=True)  # an earlier run's
        elif not (path.is_file() and filecmp.cmp(part, path, shallow=False)):  # by a run that was interrupted here
            with part.open("rb") as source, whole_file(path, replace=overwrite) as file:
                shutil.copyfileobj(source, file, BLOCK)

    def _place_results(self, *, overwrite: bool) -> None:
        part = self._paths.results
        if part.exists() and self._results.size and not (self._output.exists() and part.samefile(self._output)):
            place_file(part, self._output, replace=overwrite)

    def _begin(self) -> None:
        self._results.cut(0)
        self._rejects.cut(0)
        self._log.cut(0)
        self._log.append(_sealed(self._facts))
        self._marked = self._log.size

    def _leave(self) -> None:
        """Files in which nothing was kept are of no use."""
        if not (self.entries or self._window):
            for path in self._paths:
                path.unlink(missing_ok=True)

    def _mark(self, added: list[bytes], *, synced: bool, complete: bool = False) -> None:
        if synced:
            self.sync()
            self._synced = time.monotonic()
        results, rejects = (hashlib.sha256(data).hexdigest() for data in added)
        mark = _Mark(
            entries=self.entries, results=self._results.size, rejects=self._rejects.size, digests=(results, rejects),
            counts=msgspec.to_builtins(self.counts), synced=synced, complete=complete,
        )  # fmt: skip
        data = _sealed(mark)
        # In place of the window's batches. What is left of them if the process ends between the two has no seal.
        self._log.write(data, self._marked)
        self._marked += len(data)
        self._log.cut(self._marked)
        if synced:
            self._log.sync()

    def _recover(self, progress: Callable[[int, int], None], *, placed: bool) -> None:
        """Take what is there up to the last window that is whole, and the batches behind it.

        placed: the results have their name already.
        """
        synced = _synced_marks(self._paths.log)
        last, number, lost = _Mark(entries=0, results=0, rejects=0, digests=("", ""), counts={}, synced=True), 0, False
        for record, end in _records(self._paths.log):
            if isinstance(record, _Mark):
                number += 1
                if not self._is_whole(record, last, must_be=number <= synced):
                    lost = True
                    break
                last, self.complete = record, record.complete
                self.entries, self.counts = record.entries, _counts(record, type(self.counts), self._paths)
                progress(record.results, self._results.size)
            # A batch of an earlier window may be left where its mark was written and the process ended then.
            elif isinstance(record, _Batch) and record.lines and record.lines[0][0] >= self.entries:
                self._window |= {n: (rejected, bytes(line)) for n, rejected, line in record.lines}
                self.counts.add(_counts(record, type(self.counts), self._paths))
            self._marked = self._marked if isinstance(record, _Batch) else end
            self._log.size = end
        self.earlier = self.counts.tried
        if placed and (lost or self._results.size != last.results):
            raise SpecBeamError(
                f"{self._output} is not what the interrupted run made, which had come to its end "
                f"({self._paths.log.name} says so). Move one of the two away, or {ANEW}."
            )
        self._log.cut(self._log.size)
        if placed:
            return
        if lost or self._results.size > last.results or self._rejects.size > last.rejects:
            self._warn(f"{self._paths.results}: what follows entry {last.entries} is not whole, and is made again")
        self._results.cut(last.results)
        self._rejects.cut(last.rejects)

    def _is_whole(self, mark: _Mark, before: _Mark, *, must_be: bool) -> bool:
        """Whether what a window added to both files is as it was written.

        must_be: it was on the disk, so that no failure of the machine explains other bytes: raises `SpecBeamError`.
        """
        if self._rejects_placed:
            mark, before = replace(mark, rejects=0, digests=(mark.digests[0], NOTHING)), replace(before, rejects=0)
        if mark.results > self._results.size or mark.rejects > self._rejects.size:
            return False
        found = self._results.digest(before.results, mark.results), self._rejects.digest(before.rejects, mark.rejects)
        if found == mark.digests:
            return True
        if must_be:
            raise SpecBeamError(
                f"{self._paths.results} or {self._paths.rejects.name} was edited: the lines of entries "
                f"{before.entries + 1} to {mark.entries} are not what the interrupted run wrote. Put those back to go "
                f"on with it, {ANEW}."
            )
        return False


@final
class _File:
    """A file that is written at its end, or cut, past Python's buffers: what a full disk refuses is told at once."""

    def __init__(self, handle: int) -> None:
        self._handle, self.size = handle, os.fstat(handle).st_size

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["_File"]:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            yield cls(handle)
        finally:
            os.close(handle)

    def append(self, data: bytes) -> None:
        self.write(data, self.size)
        self.size += len(data)

    def write(self, data: bytes, start: int) -> None:
        left = memoryview(data)
        while left:
            done = os.pwrite(self._handle, left, start)
            left, start = left[done:], start + done

    def cut(self, size: int) -> None:
        os.ftruncate(self._handle, size)
        self.size = size

    def sync(self) -> None:
        os.fsync(self._handle)

    def digest(self, start: int, end: int) -> str:
        """SHA-256 of a part."""
        found = hashlib.sha256()
        while start < end and (data := os.pread(self._handle, min(BLOCK, end - start), start)):
            found.update(data)
            start += len(data)
        return found.hexdigest()


def output_kept_in(path: Path) -> Path | None:
    """The output of an interrupted run whose lines are kept in a file; None: of none."""
    for ending in (file.name[1:] for file in JournalFiles.of(path.with_name("_"))):
        output = path.with_name(path.name.removesuffix(ending)) if path.name.endswith(ending) else None
        if output and output != path and output.name and _first(JournalFiles.of(output).log) is not None:
            return output
    return None


def _first(log: Path) -> RunFacts | None:
    """What run a log is of."""
    first = next(_records(log), (None, 0))[0] if log.is_file() else None
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
    return isinstance(last, _Mark) and last.complete


def kept_requests(output: Path) -> int:
    """How many requests an interrupted run had tried."""
    paths, kept, later = JournalFiles.of(output), 0, 0
    for record, _ in _records(paths.log) if paths.log.is_file() else ():
        if isinstance(record, _Mark):
            kept, later = _counts(record, Outcomes, paths).tried, 0
        elif isinstance(record, _Batch):
            later += _counts(record, Outcomes, paths).tried
    return kept + later


def _counts(record: _Mark | _Batch, kind: type[Counts], paths: JournalFiles) -> Counts:
    try:
        return msgspec.convert(record.counts, kind)
    except DAMAGED as error:
        raise SpecBeamError(f"{paths.log} is damaged: {error}. Move it and {paths.results} away.") from error


_DECODER = msgspec.json.Decoder(Record)


def _seal(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest()[:SEAL].encode()


def _sealed(record: Record) -> bytes:
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


def _records(log: Path) -> Iterator[tuple[Record, int]]:
    """The log's records up to the first that is none, and where each ends."""
    end = 0
    with log.open("rb") as file:
        for line in file:
            record = _opened(line)
            if record is None:
                return
            end += len(line)
            yield record, end


def _synced_marks(log: Path) -> int:
    """How many of the log's marks say what was on the disk when the last of those that say so was written.

    Raises `SpecBeamError` where a line before that one is not as it was written: no failure of the machine does that.
    """
    number = synced = bad = 0
    with log.open("rb") as file:
        for place, line in enumerate(file, 1):
            record = _opened(line)
            bad = place if record is None and not bad else bad
            if not isinstance(record, _Mark):
                continue
            number += 1
            synced = number if record.synced else synced
            if record.synced and bad:
                raise SpecBeamError(
                    f"{log}, line {bad}, is damaged, or was edited: what the interrupted run had done behind it cannot "
                    f"be told. Put back what was there to go on with it, {ANEW}."
                )
    return synced


def _facts_left(paths: JournalFiles) -> RunFacts | None:
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


def _check_same(left: RunFacts, facts: RunFacts, partial: Path) -> None:
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
