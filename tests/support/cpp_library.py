"""The C library, built by CMake and installed to a folder, and programs that use it from there."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import final

import pytest

from places import ROOT

SOURCE = ROOT / "serve" / "cpp"
PROGRAMS = ROOT / "tests" / "serve" / "cpp" / "programs"
PATIENCE = 300  # seconds
WARNINGS = ["-Wall", "-Wextra", "-Werror"]


def told(*command: object, **environment: str) -> str:
    """What a command prints that must succeed."""
    done = started(command, environment)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def fed(text: str, *command: object) -> str:
    """As `told`, with a text on standard input."""
    done = started(command, text=text)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def started(
    command: Sequence[object], environment: dict[str, str] | None = None, text: str = ""
) -> "subprocess.CompletedProcess[str]":
    """A command, run to its end. environment: what differs from this one's; "": without the variable."""
    merged = {name: value for name, value in (os.environ | (environment or {})).items() if value}
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, input=text, timeout=PATIENCE, env=merged)


@cache
def missing() -> str:
    """Why the library cannot be built here; "": it can."""
    absent = [name for name in ("gcc", "g++", "cmake", "ninja", "pkg-config") if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} is not installed"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "this Python has no headers"
    if not (Path(sysconfig.get_config_var("LIBDIR")) / sysconfig.get_config_var("INSTSONAME")).exists():
        return "this Python has no shared libpython"
    if "pybind11_DIR" not in os.environ and started([sys.executable, "-m", "pybind11", "--cmakedir"]).returncode:
        return "pybind11 is not installed"
    return ""


@final
@dataclass(frozen=True)
class Library:
    """One build, installed. Its programs are built as it is: with the same sanitizer."""

    prefix: Path
    sanitizer: str = ""

    @property
    def file(self) -> Path:
        return self.prefix / "lib" / "libspecbeam.so"

    def program(self, source: str, *flags: object, suffix: str = "") -> Path:
        """A program of tests/serve/cpp/programs, compiled once against what is installed."""
        path = PROGRAMS / source
        made = self.prefix / "programs" / f"{path.stem}{path.suffix.replace('.', '-')}{suffix}"
        if not made.exists():
            made.parent.mkdir(exist_ok=True)
            compiler = ["gcc", "-std=c99"] if path.suffix == ".c" else ["g++", "-std=c++17"]
            checked = [f"-fsanitize={self.sanitizer}"] if self.sanitizer else []
            warned = [] if self.sanitizer else WARNINGS  # GCC warns falsely where it adds checks
            told(*compiler, *warned, "-g", "-O1", "-pthread", *checked, path, "-o", made, *(flags or self.flags()))
        return made

    def flags(self) -> list[str]:
        """What pkg-config says to compile and link with."""
        return told("pkg-config", "--cflags", "--libs", "specbeam", **self.environment).split()

    @property
    def environment(self) -> dict[str, str]:
        """Where pkg-config finds the library."""
        return {"PKG_CONFIG_PATH": str(self.prefix / "lib" / "pkgconfig")}


def built(folder: Path, sanitizer: str = "") -> Library:
    """The library, built and installed; skips where it cannot be built."""
    if why := missing():
        pytest.skip(f"the C library cannot be built here: {why}")
    quick = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_UNITY_BUILD_BATCH_SIZE=0"]
    told(
        "cmake", "-S", SOURCE, "-B", folder / "build", "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}",
        f"-DCMAKE_INSTALL_PREFIX={folder / 'prefix'}", "-DCMAKE_INSTALL_LIBDIR=lib",
        "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON", f"-DSPECBEAM_SANITIZE={sanitizer}", *(quick if sanitizer else []),
    )  # fmt: skip
    told("cmake", "--build", folder / "build")
    told("cmake", "--install", folder / "build")
    return Library(folder / "prefix", sanitizer)
