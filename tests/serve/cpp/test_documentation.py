"""What docs/embedding.md shows of C and C++ compiles, runs and prints lists."""

import re
import shlex
from pathlib import Path

import pytest

from cpp_library import Library, told
from places import ROOT
from tiny_bundle import Tiny

pytestmark = pytest.mark.services
PAGE = (ROOT / "docs" / "embedding.md").read_text().partition("\n## C and C++\n")[2].partition("\n## ")[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands(word: str) -> list[str]:
    """The lines of the page's commands that begin so."""
    return [line for block in blocks("sh") for line in block.splitlines() if line.startswith(word)]


@pytest.fixture
def folder(library: Library, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands are typed: beside the sources, a prefix and a bundle whose items the page names."""
    (tmp_path / "prefix").symlink_to(library.prefix)
    (tmp_path / "serve").symlink_to(ROOT / "serve")
    (tmp_path / "bundle").symlink_to(tiny.bundle)
    (tmp_path / "histories.txt").write_text("ada 11 7\nbob 3 4 5\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_program_in_c(folder: Path) -> None:
    (program,), (compiling,) = blocks("c"), commands("PKG_CONFIG_PATH")
    (folder / "program.c").write_text(program)
    told("bash", "-ec", compiling)
    assert len(told("./program").splitlines()) == 10


def test_the_program_in_cpp(folder: Path) -> None:
    (program,), (compiling,) = blocks("cpp"), commands("PKG_CONFIG_PATH")
    (folder / "program.cpp").write_text(program)
    told("bash", "-ec", compiling.replace(" cc program.c ", " g++ -std=c++17 program.cpp "))
    listed = [line.split()[0] for line in told("./program").splitlines()]
    assert len(listed) == 10
    assert not {"52", "9"} & set(listed)


def test_the_examples(folder: Path) -> None:
    for line in commands("cmake"):
        if "examples" in line:
            told("bash", "-ec", line)
    (one,), (pool,) = commands("examples-build/recommend"), commands("examples-build/pool")
    assert len(told(*shlex.split(one)).splitlines()) == 10
    assert [line.split()[0] for line in told(*shlex.split(pool)).splitlines()] == ["ada", "bob"]


def test_it_is_built_as_every_test_builds_it() -> None:
    built = [line for line in commands("cmake") if "-S serve/cpp -B" in line]
    assert len(built) == 1
    assert "-DPython_EXECUTABLE=" in built[0]
    assert "-DCMAKE_INSTALL_PREFIX=" in built[0]
