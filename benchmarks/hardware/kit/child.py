"""A part's process: does its steps one after another, and keeps each as soon as it has ended.

It is told a job and a part, and writes OUT/<part>.json after every one, so that
whoever ends it costs it no more than the step that it is at. It ends when its standard input does: with the
process that started it.
"""

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from time import monotonic

import msgspec
from msgspec.structs import replace

from benchmarks.hardware.kit.parts import Job, Part, PassedOver, Wrong
from benchmarks.hardware.kit.record import Record, Row, Status, Step, read, write
from specbeam.catalog.errors import SpecBeamError, said
from specbeam.catalog.files import Frozen


class Told(Frozen, frozen=True):
    """What a process is told, as JSON in its only argument."""

    job: Job
    part: Part
    last: tuple[str, ...] = ()  # steps that are tried after all others (where they do not build on it)


def reason(error: BaseException) -> str:
    """An error of ours as it is; another one, in a line."""
    return str(error) if isinstance(error, SpecBeamError | PassedOver | Wrong | SystemExit) else said(error)


def work(told: Told) -> Record:
    """Do what lacks, a single step where a process is for no more."""
    job, part, start = told.job, told.part, monotonic()
    record = read(job.out, part.name) or Record(part=part.name, setup=job.setup)
    before = record.seconds

    def keep(changed: Record) -> Record:
        return write(job.out, replace(changed, seconds=round(before + monotonic() - start, 2)))

    try:
        steps = part.steps(job)
    except BaseException as error:
        status = outcome(error)
        return keep(replace(record, status=status, reason=reason(error), running=None))
    kept = tuple(step for step in record.steps if step.name in steps)
    record = replace(record, planned=tuple(steps), steps=kept, status="unfinished", reason=None)
    lacking = sorted(
        (name for name in steps if record.step(name) is None), key=lambda name: name in told.last and not part.in_order
    )
    for name in lacking[:1] if part.apart else lacking:
        record = keep(replace(record, running=name))
        record = keep(record.having(attempted(name, steps[name])))
    if all(record.step(name) is not None for name in steps):
        record = keep(record.ended())
    return record


def attempted(name: str, step: Callable[[], Iterable[Row]]) -> Step:
    """One step, whatever comes of it."""
    start, rows = monotonic(), tuple[Row, ...]()
    status: Status = "done"
    why = None
    try:
        rows = tuple(step())
    except BaseException as error:
        status, why = outcome(error), reason(error)
        rows = error.rows if isinstance(error, Wrong) else ()
    return Step(name=name, status=status, seconds=round(monotonic() - start, 2), reason=why, rows=rows)


def outcome(error: BaseException) -> Status:
    """What an error makes of a step; whoever ends the process is not kept from it."""
    if isinstance(error, KeyboardInterrupt | GeneratorExit):
        raise error
    if isinstance(error, PassedOver):
        return "passed over"
    traceback.print_exception(error)
    return "failed"


def end_with_the_parent() -> None:
    """A pipe whose other end only the parent holds: it ends however that one does."""
    while os.read(0, 1024):
        pass
    os._exit(1)


def main() -> None:
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    told = msgspec.json.decode(sys.argv[1], type=Told, dec_hook=lambda kind, text: kind(text))
    work(told)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # what libraries do at the end of a process is not a part's outcome


if __name__ == "__main__":
    main()
