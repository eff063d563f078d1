"""A long run's lines as they come, kept so that a run that was interrupted goes on where it stopped.

OUTPUT.partial holds the results of all complete windows in the input's order, and becomes OUTPUT; their rejects are in
OUTPUT.partial.rejects. The first line of OUTPUT.partial.log says what run it is; behind it stands a mark for every
window, with the checksum of what the window added to the two files, and then the batches of the window at hand: when
that is complete, its mark takes their place. Only this window is held in memory.
"""

import filecmp
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar, final

import msgspec
from msgspec.structs import replace

from ...catalog.claims import claim
from ...catalog.disk import told_if_full
from ...catalog.errors import OutputTakenError, SpecBeamError
from ...catalog.files import place_file, whole_file
from ...catalog.records import RejectLine
from .log import (
    ANEW,
    BLOCK,
    Batch,
    JournalFiles,
    Mark,
    RunFacts,
    check_same,
    completed,
    counted,
    facts_left,
    records,
    sealed_record,
    synced_marks,
)
from .windows import Outcomes, Sink

SYNC_SECONDS = 5.0  # between two times at which what is kept is forced to the disk
NOTHING = hashlib.sha256().hexdigest()
Counts = TypeVar("Counts", bound=Outcomes)


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
        self._synced = self._log_synced = time.monotonic()  # all of it, at a mark; the log alone, between two

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
            left = facts_left(paths)
            if left is not None and not overwrite:
                check_same(left, facts, paths.results)
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
        self._log.append(sealed_record(Batch(lines=entries, counts=msgspec.to_builtins(counts))))
        self._window |= encoded
        self.counts.add(counts)
        if time.monotonic() - self._log_synced > SYNC_SECONDS:  # windows of long texts take hours
            self._log.sync()
            self._log_synced = time.monotonic()

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
        with self._results.path.open("rb") as file:
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
            self._place_rejects(rejects)
        except OutputTakenError as error:  # the results are complete all the same
            taken = error
        try:
            self._place_results()
        except OutputTakenError as error:
            taken = error
        for path in self._paths:
            path.unlink(missing_ok=True)
        if taken is not None:
            raise taken

    def _place_rejects(self, path: Path) -> None:
        part = self._paths.rejects
        if self._rejects_placed:
            return
        if not self._rejects.size:
            if self.overwrite:
                path.unlink(missing_ok=True)  # an earlier run's
        elif not (path.is_file() and filecmp.cmp(part, path, shallow=False)):  # by a run that was interrupted here
            with part.open("rb") as source, whole_file(path, replace=self.overwrite) as file:
                shutil.copyfileobj(source, file, BLOCK)

    def _place_results(self) -> None:
        part = self._paths.results
        if part.exists() and self._results.size and not (self._output.exists() and part.samefile(self._output)):
            place_file(part, self._output, replace=self.overwrite)

    def _begin(self) -> None:
        self._results.cut(0)
        self._rejects.cut(0)
        self._log.cut(0)
        self._log.append(sealed_record(self._facts))
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
        mark = Mark(
            entries=self.entries, results=self._results.size, rejects=self._rejects.size, digests=(results, rejects),
            counts=msgspec.to_builtins(self.counts), synced=synced, complete=complete,
        )  # fmt: skip
        data = sealed_record(mark)
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
        synced = synced_marks(self._paths.log)
        last, number, lost = Mark(entries=0, results=0, rejects=0, digests=("", ""), counts={}, synced=True), 0, False
        for record, end in records(self._paths.log):
            if isinstance(record, Mark):
                number += 1
                if not self._is_whole(record, last, must_be=number <= synced):
                    lost = True
                    break
                last, self.complete = record, record.complete
                self.entries, self.counts = record.entries, counted(record, type(self.counts), self._paths)
                progress(record.results, self._results.size)
            # A batch of an earlier window may be left where its mark was written and the process ended then.
            elif isinstance(record, Batch) and record.lines and record.lines[0][0] >= self.entries:
                self._window |= {n: (rejected, bytes(line)) for n, rejected, line in record.lines}
                self.counts.add(counted(record, type(self.counts), self._paths))
            self._marked = self._marked if isinstance(record, Batch) else end
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

    def _is_whole(self, mark: Mark, before: Mark, *, must_be: bool) -> bool:
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

    def __init__(self, path: Path, handle: int) -> None:
        self.path, self._handle, self.size = path, handle, os.fstat(handle).st_size

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["_File"]:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            yield cls(path, handle)
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
