"""Runs that are cut short at a call."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from specbeam.catalog.records import Reject, RejectLine
from specbeam.runtime.runs import journal as journal_module
from specbeam.runtime.runs.journal import Journal, _File
from specbeam.runtime.runs.log import JournalFiles, RunFacts
from specbeam.runtime.runs.windows import Ending, Job, Outcomes, Stop, serve
from specbeam.runtime.types import RequestFailure

BATCH = 3


class Line(msgspec.Struct):
    number: int
    batch: list[int]  # the entries that shared it


class Task(Job[int, int, Line, Outcomes]):
    """An entry's line tells whom it shared a batch with: entries of one length, which is the last digit."""

    ahead = 4 * BATCH

    def __init__(self, broken: frozenset[int] = frozenset(), stopping: int | None = None) -> None:
        """stopping: after so many batches somebody asks for the end."""
        self.asked: list[int] = []
        self.stop = Stop()
        self._broken, self._stopping = broken, stopping

    def counts(self) -> Outcomes:
        return Outcomes()

    def encode(self, entry: int | Reject, counts: Outcomes) -> int | Reject:
        odd = isinstance(entry, int) and entry % 7 == 3
        return Reject(entry, "odd", str(entry), "numbers") if odd else entry

    def batches(self, requests: list[int]) -> Iterator[dict[int, Line | RequestFailure]]:
        order = np.argsort([entry % 10 for entry in requests], kind="stable").tolist()
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            self.asked += [requests[place] for place in chosen]
            shared = [requests[place] for place in chosen]
            if self._stopping is not None and len(self.asked) >= BATCH * self._stopping:
                self.stop.ask()
            yield {
                place: RequestFailure(place, None, "e", "NaN")
                if requests[place] in self._broken
                else Line(requests[place], shared)
                for place in chosen
            }

    def line(self, entry: int, answer: Line, counts: Outcomes) -> Line:
        return answer

    def failed(self, entry: int, reason: str) -> RejectLine:
        return RejectLine("numbers", entry, reason, str(entry))


class AheadTask(Task):
    """Takes the next window before the one at hand is done, as who serves several batches at a time does."""

    def answers(self, windows: Iterator[list[int]]) -> Iterator[dict[int, Line | RequestFailure]]:
        waiting = deque[dict[int, Line | RequestFailure]]()
        for requests in windows:
            waiting += self.batches(requests)
            while len(waiting) > 2:
                yield waiting.popleft()
        yield from waiting


def facts(**changes: Any) -> RunFacts:
    told: dict[str, Any] = {"verb": "count", "bundle": "b", "engine": "e", "read": {"input": "i"}, "options": {"k": 3}}
    return RunFacts(**(told | changes))


def entries(number: int) -> list[int | Reject]:
    return [Reject(n, "no number", "x", "numbers") if n % 11 == 5 else n for n in range(number)]


def run(
    output: Path, number: int = 100, *, job: Task | None = None, overwrite: bool = False,
    told: list[str] | None = None, **changes: Any,
) -> tuple[Ending, Outcomes]:  # fmt: skip
    """One process's share of a run."""
    warn = (lambda message: None) if told is None else told.append
    with Journal.open(output, facts(**changes), Outcomes(), overwrite=overwrite, warn=warn) as journal:
        ending: Ending = "end"
        assert len(list(journal.results())) == journal.counts.served  # wherever they are by now
        if not journal.complete:
            job = job or Task()
            ending = serve(job, entries(number), journal, stop=job.stop, ahead=isinstance(job, AheadTask))
        if ending != "stopped":
            journal.finish(output.with_name("rejects"))
        return ending, journal.counts


def made(output: Path) -> tuple[bytes, bytes]:
    return output.read_bytes(), output.with_name("rejects").read_bytes()


class Killed(BaseException):
    """The process ends in the middle of a call of the system."""


class Calls:
    """Counts the calls that change files, and ends the process in one of them, which is then done in part."""

    def __init__(self, patched: pytest.MonkeyPatch, last: int | None = None, share: float = 0.0) -> None:
        self.number, self._last, self._share = 0, last, share
        for owner, name in ((_File, "write"), (_File, "cut"), (journal_module, "place_file"), (Path, "unlink")):
            patched.setattr(owner, name, self._counted(name, getattr(owner, name)))

    def _counted(self, name: str, real: Any) -> Any:
        def called(*arguments: Any, **options: Any) -> Any:
            if name == "unlink" and ".partial" not in arguments[0].name:
                return real(*arguments, **options)
            self.number += 1
            if self.number == self._last:
                if name == "write":
                    file, data, start = arguments
                    real(file, data[: int(self._share * len(data))], start)
                raise Killed
            return real(*arguments, **options)

        return called


def interrupted(out: Path, monkeypatch: pytest.MonkeyPatch) -> JournalFiles:
    """A run of which two windows are on the disk, and some batches of the third."""
    with monkeypatch.context() as patched:
        patched.setattr(journal_module, "SYNC_SECONDS", 0.0)
        assert run(out, job=Task(stopping=9))[0] == "stopped"
    return JournalFiles.of(out)
