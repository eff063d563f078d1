"""What worker processes open in tests: it crosses to them by pickle, so it lies in a module."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from specbeam.catalog.errors import OptionError


class StubbornError(Exception):
    """Does not survive a pickle."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


@dataclass(frozen=True)
class Echo:
    """Gives back a piece, and who did it; some pieces mean more."""

    pids: Path | None = None  # a folder for a file named by each process

    def __call__(self) -> Callable[[object], tuple[object, int]]:
        if self.pids is not None:
            (self.pids / str(os.getpid())).touch()
        return self.answer

    def answer(self, piece: object) -> tuple[object, int]:
        if isinstance(piece, float):
            time.sleep(piece)
        elif piece == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif piece == "leave":
            os._exit(7)
        elif piece == "option":
            raise OptionError("of a worker")
        elif piece == "stubborn":
            raise StubbornError("one", "two")
        elif piece == "foreign":
            raise KeyError("foreign")
        return piece, os.getpid()


def refusing() -> Callable[[object], object]:
    raise OptionError("cannot be opened")


def alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int], seconds: float = 30) -> bool:
    """Whether all of them end within a time."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
