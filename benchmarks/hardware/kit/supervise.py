"""Parts, each in a process of its own with a limit of time: what one does wrong costs no other anything."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import msgspec
from msgspec.structs import replace

from benchmarks.hardware.kit.child import Told
from benchmarks.hardware.kit.parts import Job, Part
from benchmarks.hardware.kit.record import Record, Step, read, set_aside, write
from specbeam.engines.doctor.trial import ended

ROOT = Path(__file__).resolve().parents[3]
LOOK = 0.2  # seconds between two looks at a part's process
GRACE = 5.0  # seconds between asking a process to end and ending it
TAIL = 3  # lines of a log that a reason holds
Watch = Callable[[Record | None], object]  # told the part's record now and then


def lacks(job: Job, part: Part, ran: Sequence[str]) -> str | None:
    """Why a part is to run; None: what there is of it holds. ran: parts that ran just now."""
    record = read(job.out, part.name)
    if record is None:
        return "not run yet"
    if record.setup != job.setup:
        return "run with another machine, library or pair"
    if record.status in ("failed", "unfinished"):
        return record.status
    renewed = [need for need in part.needs if need in ran]
    return f"after {', '.join(renewed)}" if renewed else None


def missing(job: Job, part: Part) -> str | None:
    """Why a part cannot do anything, by the parts that it builds on."""
    for name in part.without:
        record = read(job.out, name)
        if record is None or record.status != "done":
            why = "it has not run" if record is None else record.reason or record.status
            return f"the part {name!r} is not done: {why}"
    return None


def run_part(job: Job, part: Part, seconds: float, watch: Watch = lambda record: None) -> Record:
    """Do what lacks of a part for at most so long; returns its record, which is kept in the folder.

    Steps that are done stay; those that were stopped or have failed are tried again, after all others. A step that ends
    its process is a failed one, and the others go on in a new process.
    """
    last = _begin(job, part)
    if (why := missing(job, part)) is not None:
        return write(job.out, replace(_kept(job, part), status="passed over", reason=why))
    deadline = monotonic() + seconds
    log = job.out / "logs" / f"{part.name}.log"
    log.parent.mkdir(exist_ok=True)
    while True:
        before = _kept(job, part)
        with log.open("ab") as told, _process(Told(job=job, part=part, last=last), told) as process:
            code = _wait(process, deadline, lambda: watch(read(job.out, part.name)))
        record = _kept(job, part)
        if code is None:
            return write(job.out, stopped(record, f"stopped after {seconds / 60:g} minutes, its limit"))
        if record.status != "unfinished":
            return record
        if code == 0 and len(record.steps) > len(before.steps):
            continue  # one step a process
        record = _crashed(record, f"{ended(code, 'its process')}{_said(log)}")
        write(job.out, record)
        if record.status == "failed":
            return record


def stopped(record: Record, why: str) -> Record:
    """A part that was ended from outside: the step that it was at is unfinished, as all is that was not begun."""
    running = record.running
    if running is not None:
        record = record.having(Step(name=running, status="unfinished", seconds=0, reason=why))
    lacking = [name for name in record.planned if record.step(name) is None]
    told = f"{why}, at {running}" * (running is not None) or why
    return replace(record, status="unfinished", running=None, reason=f"{told}; {len(lacking)} steps were not begun")


def _begin(job: Job, part: Part) -> tuple[str, ...]:
    """Leave of a part's record what is done; the steps that were stopped or have failed."""
    record = read(job.out, part.name)
    if record is not None and record.setup != job.setup:
        set_aside(job.out, part.name)
        record = None
    record = record or Record(part=part.name, setup=job.setup)
    again = [step.name for step in record.steps if step.status in ("unfinished", "failed")]
    done = tuple(step for step in record.steps if step.status == "done")
    write(job.out, replace(record, steps=done, status="unfinished", reason="not run to its end", running=None))
    return tuple(again)


def _kept(job: Job, part: Part) -> Record:
    return read(job.out, part.name) or Record(part=part.name, setup=job.setup)


def _crashed(record: Record, why: str) -> Record:
    """After a process that ended before its work: the step that it was at has failed, or the part as a whole."""
    if record.running is None:
        return replace(record, status="failed", reason=why)
    record = record.having(Step(name=record.running, status="failed", seconds=0, reason=why))
    return record if any(record.step(name) is None for name in record.planned) else record.ended()


@contextmanager
def _process(told: Told, log: object) -> Iterator[subprocess.Popen[bytes]]:
    """A part's process; it is ended, with all that it has started, whatever happens here."""
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.hardware.kit.child", msgspec.json.encode(told, enc_hook=str).decode()],
        stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
        env=os.environ | {"PYTHONPATH": path, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},  # as nvidia-smi counts
    )  # type: ignore[call-overload] # fmt: skip
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _wait(process: subprocess.Popen[bytes], deadline: float, look: Callable[[], object]) -> int | None:
    """The status that a process ends with; None: its time is over."""
    while monotonic() < deadline:
        if (code := process.poll()) is not None:
            return code
        look()
        sleep(LOOK)
    return process.poll()


def _said(log: Path) -> str:
    """The last that a part's process wrote."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"; it said last: {' / '.join(lines[-TAIL:])}" if lines else ""
