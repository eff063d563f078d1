"""A run's outputs are its own from its start to its end."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from pathlib import Path

from .errors import SpecBeamError
from .temporaries import LOCK, is_still, sweep

ATTEMPTS = 10  # a sweeper holds a lock for a moment, to see whether anybody does
_CLAIMED: ContextVar[frozenset[Path]] = ContextVar("_CLAIMED", default=frozenset())


@contextmanager
def claim(*outputs: Path) -> Iterator[None]:
    """Hold outputs, files or folders that may not be there yet, against other runs on this machine.

    Raises `SpecBeamError` at once where another process or thread holds one of them; whoever holds them may claim them
    again. The lock is a file beside each output (`.NAME.specbeam-lock`, removed in the end) and ends with its process.
    It holds wherever `flock` does: on local file systems of Linux and macOS, and between processes of one NFS client,
    since Linux 2.6.12 of several. Elsewhere two runs go on side by side, and the later one's last step still replaces
    nothing (`files.whole_file`, `files.whole_directory`).
    """
    mine = _CLAIMED.get()
    wanted = {Path(os.path.abspath(path)): path for path in outputs}
    new = sorted(wanted.keys() - mine)
    token = _CLAIMED.set(mine | wanted.keys())
    held: list[tuple[int, Path]] = []
    try:
        for path in new:
            held.append(_lock(path, shown=wanted[path]))
            sweep(path.parent)
        yield
    finally:
        _CLAIMED.reset(token)
        for handle, lock in reversed(held):
            lock.unlink(missing_ok=True)
            os.close(handle)


def _lock(path: Path, shown: Path) -> tuple[int, Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}{LOCK}")
    for attempt in count():
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            if attempt < ATTEMPTS:
                time.sleep(0.01)
                continue
            raise SpecBeamError(
                f"{shown} is being written by another run. Wait for it, or choose another output."
            ) from None
        except OSError:
            return handle, lock  # a file system without locks
        if is_still(handle, lock):
            return handle, lock
        os.close(handle)  # its former holder has just removed it
    raise AssertionError
