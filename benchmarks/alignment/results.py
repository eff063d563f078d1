"""The results of `objectives.py` as they are written, and a work folder's results together."""

from collections.abc import Collection
from pathlib import Path

import msgspec
import numpy as np

from specbeam.align.objectives import OBJECTIVES
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.files import Frozen, whole_file
from specbeam.evaluate.figures import AtK, Pace
from specbeam.runtime.types import Float64

NONE = "none"  # the draft as it came
PERFECT = "target"  # the target as its own draft: what no alignment can better
UNTAUGHT = (NONE, PERFECT)  # no seed makes a difference to them
BASELINE = "sft"  # the same training without the target
ORDER = (NONE, "sft", "seq-kd", "word-kd", "tvd-kd", "atspeed-s", "atspeed-r", "path-kd", PERFECT)
assert set(ORDER) == {*UNTAUGHT, *OBJECTIVES}
MODES = ("strict", "all-or-nothing", "relaxed")


class Setup(Frozen, frozen=True, kw_only=True):
    """What all runs of a work folder have in common."""

    data: str
    pair: str
    steps: int
    batch: int
    learning_rate: float
    windows: int
    places: int | None
    users: int
    top_k: tuple[int, ...]


class Measured(msgspec.Struct, frozen=True):
    """One draft at one K."""

    modes: dict[str, AtK]  # by `MODES`
    calls: dict[str, tuple[int, ...]]  # of these, every user's target calls
    lists: str  # digest of the strict lists

    @property
    def k(self) -> int:
        return self.modes["strict"].k


class Result(msgspec.Struct, frozen=True):
    """One draft."""

    objective: str
    seed: int
    length: int  # L: tokens of an identifier
    users: tuple[str, ...]
    at: tuple[Measured, ...]

    @property
    def name(self) -> str:
        return run_name(self.objective, self.seed)


class Speed(msgspec.Struct, frozen=True):
    """Walltime of the first seed's drafts at batch 1."""

    seed: int
    engine: str
    threads: int
    paces: tuple[Pace, ...]


def run_name(objective: str, seed: int) -> str:
    """The name of a run's files."""
    return f"{objective}-{seed}"


def result_file(work: Path, name: str) -> Path:
    return work / "results" / f"{name}.json"


def write(path: Path, content: msgspec.Struct) -> None:
    """Write a result, whole or not at all."""
    with whole_file(path, replace=True) as file:
        file.write(msgspec.json.encode(content))


def claim(work: Path, setup: Setup) -> None:
    """Let a work folder hold runs of `setup` alone. Raises `SpecBeamError` where it holds others."""
    path = work / "setup.json"
    if not path.is_file():
        write(path, setup)
    before = msgspec.json.decode(path.read_bytes(), type=Setup)
    if before != setup:
        names = [name for name in Setup.__struct_fields__ if getattr(before, name) != getattr(setup, name)]
        told = "; ".join(f"{name} {getattr(before, name)}, now {getattr(setup, name)}" for name in names)
        raise SpecBeamError(f"{work} holds other runs ({told}). Choose another --work, or the same options.")


class Report:
    """All results of a work folder, by objective in the order of the tables, and of each by seed."""

    def __init__(self, work: Path) -> None:
        """Raises `SpecBeamError` where there is none yet."""
        paths = sorted((work / "results").glob("*.json"))
        if not paths:
            raise SpecBeamError(f"{work / 'results'} holds no result yet. Run the same command without --report first.")
        results = [msgspec.json.decode(path.read_bytes(), type=Result) for path in paths]
        self.setup = msgspec.json.decode((work / "setup.json").read_bytes(), type=Setup)
        speed = work / "speed.json"
        self.speed = msgspec.json.decode(speed.read_bytes(), type=Speed) if speed.is_file() else None
        self.runs: dict[str, list[Result]] = {}
        for result in sorted(results, key=lambda result: (ORDER.index(result.objective), result.seed)):
            self.runs.setdefault(result.objective, []).append(result)
        self.length = results[0].length

    def at(self, objective: str, k: int) -> list[Measured]:
        """Of every seed."""
        return [at for result in self.runs[objective] for at in result.at if at.k == k]

    def calls(self, objective: str, k: int, seeds: Collection[int]) -> Float64:
        """[U] every user's target calls by strict verification, mean of some seeds (an untaught draft has one)."""
        runs = [result for result in self.runs[objective] if objective in UNTAUGHT or result.seed in seeds]
        mean: Float64 = np.mean([at.calls["strict"] for run in runs for at in run.at if at.k == k], axis=0)
        return mean
