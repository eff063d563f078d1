"""A run on a cluster, seen from the process that has asked for it.

Ray takes signals, standard streams and logging into its own hands, so what talks to it is a process of its own, whose
streams go to a file; it ends when this one does, however that ends.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..catalog.errors import SpecBeamError
from ..runtime.runs.windows import Stop
from ..runtime.runs.workers import Worker, WorkerError
from .asked import ClusterRun, Outcome

TOKEN = "~/.ray/auth_token"  # where Ray keeps it


@contextmanager
def outcomes(run: ClusterRun, stop: Stop) -> Iterator[Iterator[Outcome]]:
    """What comes of a run, as it comes.

    Raises `SpecBeamError` where there is no such cluster, or a node lacks something, and where the cluster goes away;
    and `StopAsked` once `stop` is asked for.
    """
    worker = Worker[None, Outcome | None](_Talks(run))
    try:
        yield _following(run, worker, stop)
    finally:
        worker.end()


@dataclass(frozen=True)
class _Talks:
    """The process that talks to Ray."""

    run: ClusterRun

    def __call__(self) -> Callable[[None], Outcome | None]:
        """There: connect, and check the nodes; every call gives the next outcome, None when that was all."""
        handle = os.open(self.run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in (1, 2):
            os.dup2(handle, stream)
        _take_token()
        from . import pipeline

        following = pipeline.outcomes(self.run)
        waiting: list[Outcome] = [next(following)]
        return lambda _: waiting.pop() if waiting else next(following, None)


def _take_token() -> None:
    """Show a token where there is one and nothing else was said. Ray's clusters ask for one as soon as it is there, but
    who joins them shows it only if told to (its page "Token authentication"), before Ray is imported."""
    if os.environ.get("RAY_AUTH_TOKEN") or Path(os.environ.get("RAY_AUTH_TOKEN_PATH", TOKEN)).expanduser().is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _following(run: ClusterRun, worker: Worker[None, Outcome | None], stop: Stop) -> Iterator[Outcome]:
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
            f"The process that talks to Ray has ended, the cluster with it perhaps; {run.log} may say why. What is "
            "done is kept: run the same command again to go on."
        ) from error
