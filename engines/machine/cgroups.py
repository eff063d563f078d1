"""What this process's control group lets it use: containers and job schedulers limit processors and memory so."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


class Allowance(NamedTuple):
    """The tightest limits of the groups that this process is in; None: unlimited, or unknown."""

    processors: float | None  # whose time it may use
    memory: int | None  # bytes


def allowance(proc: Path = PROC, groups: Path = GROUPS) -> Allowance:
    """Read both versions of control groups, and nothing where there are none (man 7 cgroups)."""
    processors = [quota for folder in _folders("cpu", proc, groups) if (quota := _quota(folder)) is not None]
    memory = [
        int(limit)
        for folder in _folders("memory", proc, groups)
        for name in ("memory.max", "memory.limit_in_bytes")
        if (limit := _read(folder / name)).isdecimal() and int(limit) < 1 << 60  # version 1's "none" is a huge number
    ]
    return Allowance(min(processors, default=None), min(memory, default=None))


def _quota(folder: Path) -> float | None:
    """Microseconds of processor time a period."""
    both = _read(folder / "cpu.max").split()
    if not both:
        both = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
    with suppress(ValueError, ZeroDivisionError):  # "max", or -1: no limit
        quota = int(both[0]) / int(both[1])
        return quota if quota > 0 else None
    return None


def _folders(controller: str, proc: Path, groups: Path) -> Iterator[Path]:
    """The folders of this process's group and of those around it, each of which may limit it."""
    for line in _read(proc / "self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        root = groups / controller if names else groups
        own = root / path.lstrip("/")
        yield from (own, *(parent for parent in own.parents if parent.is_relative_to(root)))


def _read(file: Path) -> str:
    with suppress(OSError):
        return file.read_text("utf-8", "replace").strip()
    return ""
