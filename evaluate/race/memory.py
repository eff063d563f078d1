"""The memory that a turn adds to the process, where Linux tells."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RESET_PEAK = "5"  # see proc(5), clear_refs


def _megabytes(what: str) -> float | None:
    with suppress(OSError):
        found = re.search(rf"{what}:\s*(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 / 1e6 if found else None
    return None


class PeakMemory:
    """What was added at most, by name; and the most that the process had."""

    def __init__(self) -> None:
        self.added: dict[str, float | None] = {}
        self.most = _megabytes("VmHWM")  # a peak is forgotten whenever it is measured anew

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Measure a turn of `name`: the process's peak meanwhile less what it had before."""
        before = _megabytes("VmRSS")
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text(RESET_PEAK)
        yield
        peak = _megabytes("VmHWM")
        if before is not None and peak is not None:
            self.added[name] = max(self.added.get(name) or 0.0, peak - before)
            self.most = max(self.most or 0.0, peak)
