"""What is installed is what the repository holds."""

import ast
import sys
import tomllib
from importlib import resources, util
from importlib.metadata import entry_points, version
from pathlib import Path
from subprocess import run

import pytest

import specbeam
from places import ROOT

NOT_SHIPPED = {"tests", "benchmarks", "docs", "examples", "build", "dist", "demo"}


def shipped_modules() -> list[str]:
    """Module names of every Python file of the checkout that belongs into the wheel."""
    folders = [path for path in ROOT.glob("[a-z]*/") if path.is_dir() and path.name not in NOT_SHIPPED]
    files = [*ROOT.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]
    return sorted(".".join(("specbeam", *file.relative_to(ROOT).with_suffix("").parts)) for file in files)


def settings() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_folder_with_python_files_is_a_listed_package() -> None:
    folders = {name.rpartition(".")[0] for name in shipped_modules()}
    assert folders == set(settings()["packages"])


@pytest.mark.parametrize("name", shipped_modules())
def test_every_module_is_installed(name: str) -> None:
    name = name.removesuffix(".__init__")
    spec = util.find_spec(name)
    assert spec is not None, f"{name} is in the checkout, but not in the installed package"
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(Path(specbeam.__file__).parent)


@pytest.mark.skipif(Path(specbeam.__file__).parent == ROOT, reason="an editable install is the checkout itself")
def test_the_installed_files_are_the_checkout_s_and_no_others() -> None:
    installed = Path(specbeam.__file__).parent
    names = {path.relative_to(installed) for path in installed.rglob("*.py")}
    assert names == {Path(*name.split(".")[1:]).with_suffix(".py") for name in shipped_modules()}
    stale = [str(name) for name in names if (installed / name).read_bytes() != (ROOT / name).read_bytes()]
    assert not stale, f"the installed package is older than the checkout: {stale}. Install it again."


def test_types_are_shipped() -> None:
    assert resources.files("specbeam").joinpath("py.typed").is_file()


def test_the_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert specbeam.__version__ == version("specbeam") == project["version"]


def test_the_command_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="specbeam")
    assert script.value == "specbeam.cli:main"
    done = run([sys.executable, "-m", "specbeam.cli", "--version"], capture_output=True, text=True, check=True)
    assert specbeam.__version__ in done.stdout


def test_nothing_imports_the_repository_s_folders_as_top_level_packages() -> None:
    """`import export` works from the repository root and nowhere else."""
    folders = {name.split(".")[1] for name in shipped_modules()}
    wrong = []
    for name in shipped_modules():
        path = ROOT / Path(*name.split(".")[1:]).with_suffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            absolute = node.module or "" if isinstance(node, ast.ImportFrom) and not node.level else ""
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [absolute]
            wrong += [f"{path.name}: {given}" for given in names if given.split(".")[0] in folders]
    assert not wrong
