"""Which Python is found, and what is said where none can serve: each in a process of its own."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import specbeam
from cpp_library import Library, started
from tiny_bundle import Tiny

pytestmark = pytest.mark.services
OK, PYTHON = 0, 2
HERE = f"python{sys.version_info.major}.{sys.version_info.minor}"


def opened(library: Library, tiny: Tiny, *pythons: object, **environment: str) -> list[tuple[int, str]]:
    """Status and error of every opening, one after another in one process."""
    done = started([library.program("open.c"), tiny.bundle, *pythons], environment)
    assert done.returncode == 0, done.stderr
    fields = [line.split("\t", 1) for line in done.stdout.splitlines()]
    return [(int(status), said) for status, said in fields]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing in it."""
    folder = tmp_path_factory.mktemp("environments") / "empty"
    venv.create(folder, with_pip=False)
    return folder


def test_an_environment_is_its_folder_or_its_python_or_named_by_a_variable(library: Library, tiny: Tiny) -> None:
    folder = Path(sys.prefix)
    assert opened(library, tiny, folder, sys.executable, "-", folder) == [(OK, "")] * 4
    assert opened(library, tiny, "-", SPECBEAM_PYTHON=sys.prefix) == [(OK, "")]
    [(status, said)] = opened(library, tiny, "-", SPECBEAM_PYTHON="/no/such/environment")
    assert status == PYTHON
    assert "/no/such/environment does not exist; expected the `python` of an environment" in said


def test_one_without_the_package_says_how_to_install_it(library: Library, tiny: Tiny, empty: Path) -> None:
    [(status, said), again, other] = opened(library, tiny, empty, empty, sys.prefix, PYTHONPATH="")
    assert status == PYTHON
    assert f"the environment {empty} cannot serve: No module named 'specbeam'" in said
    assert f"{empty}/bin/python -m pip install" in said
    assert again == (status, said)
    assert (other[0], "cannot run another one" in other[1]) == (PYTHON, True)


def test_one_of_another_version_of_the_package_is_refused(library: Library, tiny: Tiny, tmp_path: Path) -> None:
    venv.create(tmp_path / "old", with_pip=False)
    package = tmp_path / "old" / "lib" / HERE / "site-packages" / "specbeam"
    (package / "serve").mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '0.0.9'\n")
    (package / "serve" / "__init__.py").write_text("")
    (package / "serve" / "embedded.py").write_text("")
    [(status, said)] = opened(library, tiny, tmp_path / "old", PYTHONPATH="")
    assert status == PYTHON
    assert f"is of specbeam {specbeam.__version__}, and {tmp_path / 'old'} has 0.0.9" in said


def test_one_of_another_python_is_refused(library: Library, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib" / "python3.2").mkdir(parents=True)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    [(status, said), here] = opened(library, tiny, tmp_path, "-")
    assert status == PYTHON
    assert f"is not in an environment of Python {HERE.removeprefix('python')}, which this library was built for" in said
    assert here == (OK, "")  # no interpreter was started


def test_a_process_has_one_environment(library: Library, tiny: Tiny, empty: Path) -> None:
    first, (status, said), again = opened(library, tiny, "-", empty, "-")
    assert first == again == (OK, "")
    assert status == PYTHON
    assert f"this process runs Python in {sys.prefix}, and cannot run another one in {empty}" in said


def test_no_module_of_the_working_directory_is_imported(library: Library, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "specbeam.py").write_text("raise SystemExit('imported')\n")
    command = [str(library.program("open.c")), str(tiny.bundle), "-"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\t\n", "")


def test_a_python_that_cannot_start_says_so_each_time(library: Library, tiny: Tiny) -> None:
    for status, said in opened(library, tiny, "-", "-", PYTHONHOME="/no/such/home"):
        assert status == PYTHON
        assert f"Python cannot be started in {sys.executable}: " in said
