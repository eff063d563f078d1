"""New versions are loaded under load, and nobody notices; metrics tell which version did what."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.serving.triton import Triton
from tiny_bundle import Tiny
from triton_cases import PROGRAM, ask, package, value

pytestmark = pytest.mark.services
ROUNDS = 6
CALLERS = 3  # of each protocol
OPTIONS = ("--threads", 1, "--policy", "in-flight")


def test_a_new_version_under_load_fails_nobody(
    triton_python: Path, running: Triton, repository: Path, tiny: Tiny, tmp_path: Path
) -> None:
    package(tiny.bundle, repository, "busy", *OPTIONS)
    (repository / "busy" / "environment" / "venv").symlink_to(repository / "tiny" / "environment" / "venv")
    running.load("busy")
    until, asked = tmp_path / "until", tmp_path / "asked.json"
    asks = [{"inputs": {"items": [[str(i), str(i + 1)]]}, "parameters": {"k": 6}} for i in range(8)]
    urls = {"http": running.http, "grpc": running.grpc}
    content = {"urls": urls, "model": "busy", "asks": asks, "callers": CALLERS, "until": str(until)}
    asked.write_text(json.dumps(content))
    callers = subprocess.Popen([str(triton_python), str(PROGRAM), str(asked)], stdout=subprocess.PIPE, text=True)
    try:
        for number in range(2, ROUNDS + 2):
            assert f"version {number} of busy" in package(tiny.bundle, repository, "busy", *OPTIONS)
            running.load("busy")
        time.sleep(1)
    finally:
        until.touch()
        told, _ = callers.communicate(timeout=120)
    counted = json.loads(told)
    assert set(counted) <= {str(number) for number in range(1, ROUNDS + 2)}, counted
    assert str(ROUNDS + 1) in counted
    assert len(counted) > ROUNDS / 2
    time.sleep(1)  # what was counted last is handed on
    page = running.shown()
    for version, answered in counted.items():
        shown = value(page, "specbeam_requests_total", model="busy", version=version, outcome="answered")
        assert shown == answered
    assert value(page, "specbeam_requests_total", model="busy") == sum(counted.values())


def test_the_server_s_own_metrics_show_ours(triton_python: Path, running: Triton, tmp_path: Path) -> None:
    before = running.shown()
    asks = [{"inputs": {"items": [[str(i)]]}, "parameters": {"k": 6}} for i in range(12)]
    told = ask(triton_python, running, "tiny", asks, tmp_path)
    assert not [found for protocol in told.values() for found in protocol if "error" in found]
    time.sleep(1)
    after, of = running.shown(), {"model": "tiny", "version": "1"}

    def grown(name: str, **more: str) -> float:
        return value(after, name, **of, **more) - value(before, name, **of, **more)

    assert grown("specbeam_requests_total", outcome="answered") == 24
    assert grown("specbeam_request_seconds_count") == 24
    assert grown("specbeam_target_calls_total") >= 2 * 24
    assert grown("specbeam_nodes_needed_total") >= grown("specbeam_nodes_found_total") >= 0
    assert grown("specbeam_nodes_needed_total") > 0
    assert grown("specbeam_target_seconds_total") > 0
    assert grown("specbeam_batch_requests_count") > 0
    assert grown("nv_inference_request_success") == 24  # Triton's own, beside ours
