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
class ClusterRun:
    """What is asked of a cluster, as it crosses to the process that talks to it."""

    address: str | None  # of the cluster's head; None: as RAY_ADDRESS says, or else a cluster for this run alone
    workers: int | None  # None: as many as there is room for
    threads: int  # of each
    gpu: bool  # whether the engine is on one
    opens: Opens
    input: Input
    files: dict[Path, str]  # that every node must have: SHA-256 by path
    done: frozenset[Key]
    log: Path  # what Ray has to say
