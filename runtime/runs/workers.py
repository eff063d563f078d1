"""Processes that do pieces of work: one opens what it needs, and then answers piece by piece.

They are started as processes of their own (nothing is forked: an engine's threads and locks do not survive it), in a
session of their own, so that a terminal's Ctrl-C reaches this process alone. They hold nothing that could be lost: here
is decided what is kept, and they end when this process does, however that ends.
"""

import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection, Pipe, wait
from queue import SimpleQueue
from threading import Thread
from traceback import format_exc
from typing import Any, Generic, Self, TypeVar, final

from ...catalog.errors import SpecBeamError

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Opening = Callable[[], Callable[[Piece], Result]]  # what a process opens, and with it does; both cross by pickle

WAITING = 2  # pieces that a worker is given at a time: the next one is there when one is done
START = "import sys; sys.path[:] = sys.argv[2:]; from specbeam.runtime.runs.workers import work; work(sys.argv[1])"


class WorkerError(SpecBeamError):
    """A worker process ended before its work did."""


@dataclass(frozen=True)
class Failed:
    """In place of a result: what was raised, and where."""

    error: BaseException
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> "Failed":
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an exception need not survive it
            error = SpecBeamError(str(error)) if isinstance(error, SpecBeamError) else RuntimeError(repr(error))
        return cls(error, format_exc())


@final
class Worker(Generic[Piece, Result]):
    """One process, seen from the one that gives it work."""

    def __init__(self, opening: Opening[Piece, Result]) -> None:
        """Start it; it opens what it needs while this goes on."""
        self.given = deque[int]()  # numbers of the pieces that it has, in the order of their results
        self.connection, its = Pipe()
        with its:
            command = [sys.executable, "-c", START, str(its.fileno()), *sys.path]
            self._process = subprocess.Popen(
                command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, stdout=2, start_new_session=True
            )
        self._send(opening)

    def opened(self) -> None:
        """Wait until it can work. Raises what opening raised."""
        self._received()

    def give(self, number: int, piece: Piece) -> None:
        self.given.append(number)
        self._send(piece)

    def result(self) -> tuple[int, Result]:
        """Its next result, and of which piece. Raises what doing it raised, and `WorkerError` where it has ended."""
        result: Result = self._received()
        return self.given.popleft(), result

    def end(self) -> None:
        """At once, whatever it does."""
        self.connection.close()
        self._process.kill()
        self._process.wait()

    def _send(self, what: object) -> None:
        try:
            self.connection.send(what)
        except OSError:
            raise self._ended() from None

    def _received(self) -> Any:
        try:
            result = self.connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if isinstance(result, Failed):
            if not isinstance(result.error, SpecBeamError):
                result.error.add_note(f"In a worker process:\n{result.trace}")
            raise result.error
        return result

    def _ended(self) -> WorkerError:
        """Why it does not answer any more."""
        status = self._process.wait()
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        remedy = "If memory ran out: fewer workers, or smaller batches."
        return WorkerError(
            f"A worker process ({self._process.pid}) {how}; expected it to live as long as the run. {remedy}"
        )


@final
class Workers(Generic[Piece, Result]):
    """Several of them."""

    def __init__(self, workers: Sequence[Worker[Piece, Result]]) -> None:
        self._workers = workers

    @classmethod
    @contextmanager
    def started(cls, number: int, opening: Opening[Piece, Result]) -> Iterator[Self]:
        """So many, once all of them can work; they are ended in the end. Raises what opening raised."""
        workers = list[Worker[Piece, Result]]()
        try:
            for _ in range(number):
                workers.append(Worker(opening))
            for worker in workers:
                worker.opened()
            yield cls(workers)
        finally:
            for worker in workers:
                worker.end()

    def results(self, pieces: Iterable[Piece]) -> Iterator[Result]:
        """Of every piece, in their order; who is free gets the next one, which is taken then and not before.

        At most `WAITING` pieces for each worker are taken beyond the one whose result comes next. Raises what doing a
        piece raised, and `WorkerError` where a process has ended.
        """
        assert not any(worker.given for worker in self._workers)
        numbered, done = enumerate(pieces), dict[int, Result]()
        for number in count():
            self._give(numbered, done)
            while number not in done:
                busy = {worker.connection: worker for worker in self._workers if worker.given}
                if not busy:
                    return
                for connection in wait(list(busy)):
                    assert isinstance(connection, Connection)
                    done.update([busy[connection].result()])
                self._give(numbered, done)
            yield done.pop(number)

    def each(self, piece: Piece) -> list[Result]:
        """What every one makes of the same piece, one after another; raises as `results` does."""
        assert not any(worker.given for worker in self._workers)
        found = list[Result]()
        for worker in self._workers:
            worker.give(0, piece)
            found.append(worker.result()[1])
        return found

    def _give(self, pieces: Iterator[tuple[int, Piece]], done: Sized) -> None:
        """Pieces to the workers that have the fewest; done: results that wait for earlier ones."""
        while sum(len(worker.given) for worker in self._workers) + len(done) < WAITING * len(self._workers):
            worker = min(self._workers, key=lambda worker: len(worker.given))
            piece = next(pieces, None)
            if piece is None:
                return
            worker.give(*piece)


def work(descriptor: str) -> None:
    """A worker process: answer the other end of a connection until that is closed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # who ends all processes of a run leaves it to the first one to stop
    connection, pieces = Connection(int(descriptor)), SimpleQueue[bytes]()
    # A thread takes what comes: nobody ever waits to send while the other end does, too.
    Thread(target=_receive, args=(connection, pieces), daemon=True).start()
    do: Callable[[Any], Any] | None = None
    while True:
        result: object = None
        try:
            piece = pickle.loads(pieces.get())
            if do is None:
                do = piece()
            else:
                result = do(piece)
        except BaseException as error:
            result = Failed.of(error)
        with suppress(OSError):  # nobody is there any more: the thread ends this process
            connection.send(result)


def _receive(connection: Connection, pieces: SimpleQueue[bytes]) -> None:
    with suppress(EOFError, OSError):
        while True:
            pieces.put(connection.recv_bytes())
    os._exit(0)
