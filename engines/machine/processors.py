"""The machine at hand: its processors, its memory, and whether others compute on it."""

import os
import platform
from contextlib import suppress
from math import ceil

from ...catalog.bounds import Size
from ...catalog.files import Frozen
from .cgroups import PROC, allowance

# What engines gain from, of x86 and of ARM: wide vectors, products of 8-bit integers, half-precision formats.
INSTRUCTIONS = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8",
    "amx_bf16", "amx_fp16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


class Processors(Frozen, frozen=True):
    """The processors, and how many of them this process gets."""

    name: str
    architecture: str  # e.g. "x86_64"
    all: int
    affine: int  # that this process may run on
    quota: float | None  # processors' time that its control group may use; None: all
    usable: int  # threads that run at a time
    instructions: tuple[str, ...]  # of `INSTRUCTIONS`, those it has
    load: float | None  # processes that want a processor, as a mean over the last minute


class Memory(Frozen, frozen=True):
    """Bytes of main memory; None: unknown."""

    total: Size | None
    available: Size | None  # that programs can get now
    limit: Size | None  # of this process's control group; None: there is none


def found_processors() -> Processors:
    """What is known of the processors now."""
    one, affine, quota = _cpuinfo("flags", "Features").split(), _affine(), allowance().processors
    load_now = None
    with suppress(OSError):
        load_now = load()
    return Processors(
        name=processor(), architecture=platform.machine(), all=os.cpu_count() or 1, affine=affine, quota=quota,
        usable=usable(affine, quota), instructions=tuple(name for name in INSTRUCTIONS if name in one), load=load_now,
    )  # fmt: skip


def found_memory() -> Memory:
    """What is known of the memory now."""
    total = available = None
    with suppress(OSError, ValueError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines("meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            with suppress(ValueError, IndexError):
                available = int(value.split()[0]) << 10
    limit = allowance().memory
    return Memory(total=total, available=available, limit=None if limit and total and limit >= total else limit)


def free_memory() -> int | None:
    """Bytes that this process can still get, as a container's limit has it, too; None: unknown."""
    memory, own = found_memory(), resident_memory()
    left = None if memory.limit is None or own is None else max(memory.limit - own, 0)
    return min((each for each in (memory.available, left) if each is not None), default=None)


def available_threads() -> int:
    """Processors this process may use, as a container's limit has it, too: the default of every `threads`."""
    return usable(_affine(), allowance().processors)


def usable(affine: int, quota: float | None) -> int:
    """Threads that run at a time: more than a quota has processors would wait in turns."""
    return affine if quota is None else max(1, min(affine, ceil(quota)))


def processor() -> str:
    """The processor's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def load() -> float:
    """Processes that want a processor, as a mean over the last minute."""
    return os.getloadavg()[0]


def busy(load: float | None, processors: int, when: str = "began") -> str | None:
    """What to say where others compute on this machine: torch's threads then spin for processors that they do not get.

    load: when timing began (or, as `when` says, ended); None: nothing was timed.
    """
    if load is None or load <= processors + 0.5:
        return None
    return (
        f"the machine was busy when timing {when} (load {load:.1f} on {processors} processors): do not trust walltimes"
    )


def resident_memory() -> int | None:
    """Bytes of main memory that this process has."""
    with suppress(OSError, ValueError, IndexError):
        return int((PROC / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def _affine() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpuinfo(*keys: str) -> str:
    """The first processor's value of any of these keys."""
    for line in _lines("cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() in keys:
            return " ".join(value.split())
    return ""


def _lines(name: str) -> list[str]:
    """Lines of a file in /proc; none where there is no such file."""
    with suppress(OSError):
        return (PROC / name).read_text("utf-8", "replace").splitlines()
    return []
