"""What is asked of a cluster, and what comes of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..runtime.runs.partition import Done, Key, Opens
from .reading import Input


class Started(NamedTuple):
    """The cluster is there, and all of its nodes have what they need."""

    nodes: int
    workers: int
    room: int  # for so many there is room now


class Total(NamedTuple):
    """How many partitions the streams have that were read to their end, if that is all of them."""

    partitions: int


class Failed(NamedTuple):
    """A partition, or (without a number) a stream, that was not done, though it was tried again."""

    stream: int
    number: int | None
    reason: str


Outcome = Started | Total | Done[Any] | Failed


@dataclass(frozen=True)
class Needs:
    """What a worker takes of a node."""

    cpus: int  # the engine's threads
    gpus: int  # 1: the engine is on one

    def room(self, resources: dict[str, float]) -> int:
        """How many workers fit on a node that is empty."""
        fit = int(resources.get("CPU", 0) // self.cpus)
        return min(fit, int(resources.get("GPU", 0) // self.gpus)) if self.gpus else fit

    def __str__(self) -> str:
        return f"{self.cpus} CPU{'s' * (self.cpus > 1)}{' and 1 GPU' * bool(self.gpus)}"


@dataclass(frozen=True)
class ClusterRun:
    """What is asked of a cluster, as it crosses to the process that talks to it."""

    address: str | None  # of the cluster's head; None: as RAY_ADDRESS says, or else a cluster for this run alone
    workers: int | None  # None: as many as there is room for
    needs: Needs  # of each
    opens: Opens
    input: Input
    files: dict[Path, str]  # that every node must have: SHA-256 by path
    done: frozenset[Key]
    log: Path  # what Ray has to say
