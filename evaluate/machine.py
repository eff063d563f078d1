"""The machine that times were measured on: its processor, and whether others computed on it meanwhile."""

import platform
from contextlib import suppress
from os import getloadavg
from pathlib import Path


def processor() -> str:
    """The processor's name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    return platform.processor() or platform.machine()


def load() -> float:
    """Processes that want a processor, as a mean over the last minute."""
    return getloadavg()[0]


def busy(load: float | None, processors: int) -> str | None:
    """What to say where others compute on this machine: torch's threads then spin for processors that they do not get.

    load: when timing began; None: nothing was timed.
    """
    if load is None or load <= processors + 0.5:
        return None
    return (
        f"the machine was busy when timing began (load {load:.1f} on {processors} processors): do not trust walltimes"
    )
