"""What tests of Triton share: its clients in an environment of their own, this checkout as a wheel, a repository."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.serving.triton import NUMPY, Triton
from places import ROOT
from specbeam.cli import main

PROGRAM = Path(__file__).with_name("triton_server_program.py")
LEFT_OUT = ignore_patterns(".*", "build", "dist", "demo", "tests", "benchmarks", "docs", "examples", "*.egg-info")


def made(command: Sequence[object], what: str, **options: Any) -> None:
    """Run a command that needs a package index; where it fails, the test is skipped, which says why."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode:
        pytest.skip(f"{what} cannot be had here: {(done.stderr or done.stdout).strip()[-500:]}")


def client_python(folder: Path) -> Path:
    """The interpreter of an environment that has Triton's clients; they want other versions of packages than ours."""
    made([sys.executable, "-m", "venv", folder], "an environment")
    made([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "tritonclient[http,grpc]"], "tritonclient")
    return folder / "bin" / "python"


def wheel(folder: Path) -> Path:
    """This checkout as a wheel."""
    source = copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    made([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source], "a wheel")
    return next(folder.glob("specbeam-*.whl"))


def package(bundle: Path, repository: Path, name: str, *options: object) -> str:
    """`specbeam package-triton`: what it says."""
    command = ["package-triton", bundle, "--output", repository, "--name", name, *options]
    done = CliRunner().invoke(main, [str(word) for word in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def make_environment(model: Path, specbeam: Path) -> None:
    """By a model's own recipe, as a deployment does."""
    numpy = os.environ | {"NUMPY": NUMPY, "PYTHON": sys.executable}
    made(["bash", model / "environment" / "make.sh", specbeam], "the model's environment", env=numpy)


def ask(
    python: Path, running: Triton, model: str, asks: list[dict[str, Any]], folder: Path, **options: Any
) -> Any:  # fmt: skip
    """What a server answers to each of the requests, by "http" and by "grpc"; options: see `triton_server_program`."""
    asked = folder / "asked.json"
    urls = {"http": running.http, "grpc": running.grpc}
    asked.write_text(json.dumps({"urls": urls, "model": model, "asks": asks, "callers": 4, **options}))
    done = subprocess.run([str(python), str(PROGRAM), str(asked)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def value(page: str, name: str, **labels: str) -> float:
    """A metric's, summed over all others of its labels."""
    found = 0.0
    for line in page.splitlines():
        if (match := re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)) and all(
            f'{label}="{told}"' in match[1] for label, told in labels.items()
        ):
            found += float(match[2])
    return found
