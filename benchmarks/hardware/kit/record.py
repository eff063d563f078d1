"""What a part has found: a file a part, whole or absent, written anew after every step."""

from itertools import count
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from specbeam.catalog.files import Frozen, whole_file
from specbeam.engines.bundle.sealed import to_json

Status = Literal["done", "passed over", "failed", "unfinished"]
VERSION = 1  # of what rows hold: another one is not gone on with
Row = dict[str, Any]  # texts, numbers, truths


class Setup(Frozen, frozen=True):
    """On what a part ran; what another machine, library or pair has found is not gone on with."""

    device: str  # "cuda" or "cpu"
    gpu: str | None  # None: a dry run
    compute_capability: str | None
    gpu_memory: int | None  # bytes
    driver: str | None
    cuda: str | None  # the latest that the driver runs
    processor: str
    processors: int
    system: str
    versions: dict[str, str]  # of what is installed
    pair: str
    kit: int  # `VERSION`
    size: str  # of `SIZES`


class Step(Frozen, frozen=True):
    """One thing that a part did, or tried to."""

    name: str
    status: Status
    seconds: float
    reason: str | None = None  # why it is not done
    rows: tuple[Row, ...] = ()


class Record(Frozen, frozen=True):
    """A part as far as it has come."""

    part: str
    setup: Setup
    status: Status = "unfinished"
    reason: str | None = None
    seconds: float = 0.0  # of all its processes
    planned: tuple[str, ...] = ()  # its steps, in order
    running: str | None = None  # the step that its process is at
    steps: tuple[Step, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """Those of all its steps."""
        return [row for step in self.steps for row in step.rows]

    def step(self, name: str) -> Step | None:
        """A step by name, where it was begun and ended."""
        return next((step for step in self.steps if step.name == name), None)

    def having(self, done: Step) -> "Record":
        """With one step more, or with another outcome of it."""
        others = [step for step in self.steps if step.name != done.name]
        places = {name: place for place, name in enumerate(self.planned)}
        steps = sorted([*others, done], key=lambda step: places.get(step.name, len(places)))
        return replace(self, steps=tuple(steps), running=None)

    def ended(self) -> "Record":
        """With the status that its steps give it, once nothing is left to do."""
        found = {step.status for step in self.steps}
        for status in ("unfinished", "failed", "done"):
            if status in found:
                told = [f"{step.name}: {step.reason}" for step in self.steps if step.status == status != "done"]
                return replace(self, status=status, reason="; ".join(told) or None, running=None)
        reasons = list(dict.fromkeys(step.reason for step in self.steps if step.reason))
        return replace(self, status="passed over", reason="; ".join(reasons) or "nothing to do here", running=None)


def file_of(out: Path, part: str) -> Path:
    """Where a part's record lies."""
    return out / f"{part}.json"


def write(out: Path, record: Record) -> Record:
    """Keep a record in the place of the one before; returns it."""
    with whole_file(file_of(out, record.part), replace=True) as file:
        file.write(to_json(record))
    return record


def read(out: Path, part: str) -> Record | None:
    """A part's record; None where there is none, or none that can be read: that one is set aside, not lost."""
    path = file_of(out, part)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        set_aside(out, part)
        return None


def set_aside(out: Path, part: str) -> None:
    """Move a record that is not gone on with to OUT/earlier: nothing that was measured is lost."""
    folder = out / "earlier"
    folder.mkdir(exist_ok=True)
    names = (folder / f"{part}-{number}.json" for number in count(1))
    file_of(out, part).replace(next(path for path in names if not path.exists()))
