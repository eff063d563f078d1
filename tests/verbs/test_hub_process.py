"""Checkpoints of a hub as a process sees them: by its environment alone."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_cases import TOKEN, Hub, Model, commit_of, running_hub
from tiny_models import tiny_catalog, tiny_checkpoint

pytestmark = pytest.mark.services


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with running_hub() as running:
        folder = tiny_checkpoint(tmp_path / "served", num_hidden_layers=1)
        running.models = {
            "org/model": Model(folder, ("main", "v1")),
            "org/private": Model(folder, private=True),
            "org/gated": Model(folder, gated=True),
        }
        yield running


def export(hub: Hub, folder: Path, *names: str, **environment: str) -> tuple[int, str]:
    """Exit status and standard error of an export in `folder`, with its own home of the hub's."""
    tiny_catalog(folder / "index.json")
    command = [sys.executable, "-m", "specbeam.cli", "export", "--catalog", "index.json", "-o", "bundle", *names]
    known = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_HOME": str(folder / "home"), "HF_ENDPOINT": hub.url, "HF_HUB_ETAG_TIMEOUT": "2", **environment}
    done = subprocess.run(command, cwd=folder, env=known | settings, capture_output=True, timeout=300)
    return done.returncode, done.stderr.decode().replace(hub.url, "HUB")


def test_a_pair_with_and_without_a_network(hub: Hub, tmp_path: Path) -> None:
    status, told = export(hub, tmp_path, "--target", "org/model@v1", "--draft", "org/model")
    assert status == 0, told
    assert "  fetching org/model@v1\n  fetching org/model\n" in told
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_bytes())
    assert manifest["target"]["checkpoint"] == f"org/model@{commit_of('org/model@v1')}"
    assert manifest["draft"]["checkpoint"] == f"org/model@{commit_of('org/model@main')}"
    shutil.rmtree(tmp_path / "bundle")
    asked = len(hub.asked)
    status, told = export(hub, tmp_path, "--target", "org/model@v1", HF_HUB_OFFLINE="1")
    assert status == 0, told
    assert len(hub.asked) == asked
    status, told = export(hub, tmp_path, "--target", "org/other", "--overwrite", HF_HUB_OFFLINE="1")
    assert status == 1
    assert f"in the cache {tmp_path / 'home' / 'hub'}; HF_HUB_OFFLINE forbids asking HUB for it" in told
    assert "`hf download org/other`" in told
    assert (tmp_path / "bundle" / "manifest.json").is_file()


def test_a_login_lets_in(hub: Hub, tmp_path: Path) -> None:
    for name, words in {"org/private": "or it is private", "org/gated": "org/gated is gated at HUB"}.items():
        status, told = export(hub, tmp_path, "--target", name)
        assert (status, "hf auth login" in told) == (1, True), told
        assert words in told
        assert "Traceback" not in told
    (tmp_path / "home" / "token").write_text(TOKEN)  # where `hf auth login` puts it
    status, told = export(hub, tmp_path, "--target", "org/private")
    assert status == 0, told
    assert TOKEN not in told


def test_a_name_with_a_typo(hub: Hub, tmp_path: Path) -> None:
    status, told = export(hub, tmp_path, "--target", "org/modle")
    assert status == 1
    assert "org/modle is no folder here, and HUB has no model org/modle, or it is private. Check the name" in told
    assert not (tmp_path / "bundle").exists()
