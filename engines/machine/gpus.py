"""NVIDIA's GPUs as the driver tells of them, by the tool that comes with it: no library has to be installed."""

import ctypes
import os
import subprocess
from contextlib import suppress
from functools import cache

from ...catalog.bounds import Size
from ...catalog.errors import said
from ...catalog.files import Frozen

TOOL = "nvidia-smi"
ASKED = ("name", "memory.total", "memory.free", "driver_version", "compute_cap")
PATIENCE = 30  # seconds; a driver that hangs never answers


class Gpu(Frozen, frozen=True):
    """One GPU; None: not told."""

    name: str
    memory: Size | None  # bytes
    free: Size | None
    compute_capability: str | None  # e.g. "9.0"


class Gpus(Frozen, frozen=True):
    """All of the machine's GPUs."""

    devices: tuple[Gpu, ...]
    driver: str | None  # its version
    cuda: str | None  # the latest that the driver runs
    visible: str | None  # CUDA_VISIBLE_DEVICES, where it is set
    fault: str | None  # why none, or not all, are known


def found_gpus() -> Gpus:
    """What the driver tells. Never raises: where it tells nothing, `fault` says why."""
    devices: tuple[Gpu, ...] = ()
    driver, fault = None, None
    try:
        rows = [[value.strip() for value in line.split(",")] for line in _asked().splitlines() if line.strip()]
        devices = tuple(_device(row) for row in rows)
        driver = rows[0][3] if rows else None
        fault = None if rows else f"{TOOL} names no GPU"
    except FileNotFoundError:
        fault = f"{TOOL} is not here: there is no NVIDIA driver, or it is hidden from this container"
    except subprocess.TimeoutExpired:
        fault = f"{TOOL} gave no answer in {PATIENCE} s: the driver hangs"
    except (OSError, ValueError) as error:
        fault = f"{TOOL} cannot tell: {said(error)}"
    return Gpus(
        devices=devices, driver=driver, cuda=_cuda(), visible=os.environ.get("CUDA_VISIBLE_DEVICES"), fault=fault
    )


def used_gpu() -> Gpu | None:
    """The GPU that a process uses by itself: the first, or the first that CUDA_VISIBLE_DEVICES names by its number.

    None: none is told of.
    """
    return _used(os.environ.get("CUDA_VISIBLE_DEVICES", ""))


@cache  # a process asks again and again, and the driver's tool is slow to answer
def _used(visible: str) -> Gpu | None:
    first, devices = visible.split(",")[0].strip(), found_gpus().devices
    number = int(first) if first.isdecimal() else 0
    return devices[number] if number < len(devices) else None


def _asked() -> str:
    command = [TOOL, f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE)
    if done.returncode:
        raise ValueError((done.stdout + done.stderr).strip() or f"it ended with status {done.returncode}")
    return done.stdout


def _device(row: list[str]) -> Gpu:
    if len(row) != len(ASKED):
        raise ValueError(f"got {', '.join(row)!r}; expected {', '.join(ASKED)}")
    name, total, free, _, capability = row
    numeric = capability.replace(".", "", 1).isdecimal()
    return Gpu(
        name=name, memory=_mebibytes(total), free=_mebibytes(free), compute_capability=capability if numeric else None
    )


def _mebibytes(value: str) -> int | None:
    return int(value) << 20 if value.isdecimal() else None  # "[N/A]" on some devices


def _cuda() -> str | None:
    """The CUDA version of the driver's own library (cuDriverGetVersion: 1000 times the major, 10 times the minor)."""
    version = ctypes.c_int()
    with suppress(OSError, AttributeError):
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value:
            return f"{version.value // 1000}.{version.value % 1000 // 10}"
    return None
