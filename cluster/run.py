"""A run on a cluster, seen from the process that has asked for it.

Ray takes signals, standard streams and logging into its own hands, so what talks to it is a process of its own, whose
streams go to a file; it ends when this one does, however that ends.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..catalog.errors import SpecBeamError
from ..runtime.runs.partition import Done, Key, Opens
from ..runtime.runs.windows import Stop
from ..runtime.runs.workers import Worker, WorkerError
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

    def __call__(self) -> Callable[[None], Outcome | None]:
        """In that process: connect, and check the nodes; every call gives the next outcome, None when that was all."""
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in (1, 2):
            os.dup2(handle, stream)
        from .pipeline import outcomes

        following = outcomes(self)
        started = next(following)
        waiting: list[Outcome] = [started]
        return lambda _: waiting.pop() if waiting else next(following, None)

    @contextmanager
    def outcomes(self, stop: Stop) -> Iterator[Iterator[Outcome]]:
        """All of them, as they come. Raises `SpecBeamError` where there is no such cluster, or a node lacks something,
        and where the cluster goes away; and `StopAsked` once `stop` is asked for."""
        worker = Worker[None, Outcome | None](self)
        try:
            yield self._following(worker, stop)
        finally:
            worker.end()

    def _following(self, worker: Worker[None, Outcome | None], stop: Stop) -> Iterator[Outcome]:
        try:
            with stop.waiting():
                worker.opened()
            while True:
                worker.give(0, None)
                with stop.waiting():
                    _, outcome = worker.result()
                if outcome is None:
                    return
                yield outcome
        except WorkerError as error:
            raise SpecBeamError(
                f"The process that talks to Ray has ended, the cluster with it perhaps; {self.log} may say why. What "
                "is done is kept: run the same command again to go on."
            ) from error
