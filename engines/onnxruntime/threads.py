"""One pool of threads for all sessions of a process: for a process that is ours, never decided for a host's.

ONNX Runtime has at most one such pool a process, for good, of a fixed size; once it is there, a session with a pool of
its own is refused, whoever opens it (its documentation: "Thread management", and `set_global_thread_pool_sizes`).
"""

from threading import Lock

import onnxruntime as ort  # type: ignore[import-untyped]

from ...catalog import checks
from ...catalog.errors import EngineError

REFUSED = "use_per_session_threads must be false"  # what ONNX Runtime says of a pool of its own, where there is one

_shared: list[int | None] = []  # the pool's size, once sessions share one; None: somebody else knows it
_lock = Lock()


def share_threads(threads: int | None) -> None:
    """From now on, all sessions of this process share so many threads, whatever number they are opened with.

    None: those of the pool that a host has made by `set_global_thread_pool_sizes`. Again with the same number it does
    nothing. Raises `EngineError` where the process has another pool already.
    """
    if threads is not None:
        threads = checks.whole_number(threads, "threads", 1, checks.MOST_THREADS)
    with _lock:
        if _shared == [threads]:
            return
        if threads is not None:
            _make(threads)
        _shared[:] = [threads]


def _make(threads: int) -> None:
    try:
        ort.set_global_thread_pool_sizes(threads, 1)
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        there = f"of {_shared[0]} threads" if _shared and _shared[0] else "that somebody else made"
        raise EngineError(
            f"The sessions of this process cannot share {threads} threads: it has a pool {there}, which ONNX Runtime "
            f"{ort.__version__} keeps ({error}). Share that one (share_threads(None)), or do it in another process."
        ) from error


def threads_are_shared() -> bool:
    """Whether `share_threads` was called."""
    return bool(_shared)
