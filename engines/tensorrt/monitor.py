"""TensorRT's progress while it builds, told to whoever waits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from .library import Messages

Progress = Callable[[str, int, int], None]  # what is done now, steps done, steps in all
DEPTH = 2  # TensorRT's phases are nested; deeper ones come and go too fast to be read


def new_monitor(trt: Any, progress: Progress, messages: Messages) -> Any:
    """A progress monitor that tells `progress` the outer phases; what that raises stops the build, and so does an
    interrupt that came in it, or in the logger of `messages`: TensorRT would drop it.

    TensorRT calls it from several threads.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._lock, self._phases = Lock(), dict[str, tuple[int, int]]()  # name: depth, steps
            self._interruption: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._caught(), self._lock:
                depth = self._phases.get(parent_phase or "", (0, 0))[0] + 1
                self._phases[phase_name] = depth, num_steps
                self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._caught(), self._lock:
                self._tell(phase_name, step + 1)
            return self._interruption is None and messages.interruption is None

        def phase_finish(self, phase_name: str) -> None:
            with self._caught(), self._lock:
                self._tell(phase_name, self._phases[phase_name][1])
                del self._phases[phase_name]

        def raise_interruption(self) -> None:
            for interruption in (self._interruption, messages.interruption):
                if interruption is not None:
                    raise interruption

        @contextmanager
        def _caught(self) -> Iterator[None]:
            try:
                yield
            except BaseException as error:  # an exception must not pass through TensorRT's own code
                self._interruption = self._interruption or error

        def _tell(self, phase: str, done: int) -> None:
            depth, steps = self._phases[phase]
            if depth <= DEPTH and self._interruption is None:
                progress(phase, done, steps)

    return Monitor()
