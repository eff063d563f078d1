"""The commands that errors print for packages that are not installed."""

import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import specbeam.catalog.extras as extras
from places import ROOT
from specbeam.catalog.extras import EXTRAS, install, install_module

DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def words(command: str) -> list[str]:
    return [word.replace(" ", "") for word in shlex.split(command)]


@pytest.mark.parametrize("extra", DECLARED)
def test_a_remedy_names_what_the_extra_declares_and_no_project_of_an_index(extra: str) -> None:
    pip, verb, *packages = words(install(extra))
    assert (pip, verb) == ("pip", "install")
    assert packages == [name.partition(";")[0].replace(" ", "") for name in DECLARED[extra]]
    assert not any(name.startswith(("specbeam", "specrec")) for name in packages)


@pytest.mark.parametrize("extra", ["cpu", "export", "align", "parquet", "explain", "text", "groups"])
def test_pip_takes_the_remedy(extra: str) -> None:
    command = [sys.executable, "-m", *words(install(extra)), "--dry-run", "--no-index", "--no-deps"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Would install" not in done.stdout  # all of it is there already: nothing would be replaced


def test_every_module_has_an_extra_that_brings_it() -> None:
    for module, extra in EXTRAS.items():
        package = {
            "sklearn": "scikit-learn",
            "vl_convert": "vl-convert-python",
            "onnx_ir": "onnx-ir",
            "prometheus_client": "prometheus-client",
            "tensorrt_rtx": "tensorrt-rtx",
            "ray": "ray[data]",
        }.get(module, module)
        assert any(re.split(r"[><=]", name)[0] == package for name in DECLARED[extra]), module
        assert install_module(module) == install(extra)


def test_an_extra_that_is_not_declared() -> None:
    with pytest.raises(ValueError, match="no extra 'gold'"):
        install("gold")


def test_where_it_is_not_installed_the_sources_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", absent)
    assert (
        install("explain") == f"pip install {shlex.quote(f'{Path(extras.__file__).resolve().parent.parent}[explain]')}"
    )


def test_no_file_tells_to_install_a_project_by_our_name() -> None:
    told = re.compile(r"pip install[^`\n]*[\s'\"](specbeam|specrec)\b")
    kinds = {".py", ".md", ".toml"}
    files = [
        file
        for file in ROOT.rglob("*")
        if file.suffix in kinds
        and not any(part.startswith(".") or part in ("build", "tests") for part in file.relative_to(ROOT).parts)
    ]
    assert len(files) > 100
    assert not [str(file) for file in files if told.search(file.read_text())]
