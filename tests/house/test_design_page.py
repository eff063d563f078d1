"""docs/design.md and the house: its index of rooms names every module and no other; owners are where it says."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "design.md").read_text()
# "`KVCache.length` (`engines/cache.py`)", or the two in neighbouring cells of a table
OWNER = re.compile(r"`([A-Za-z]\w*)(?:\.(\w+))?`(?: \(| \| )`([\w/]+\.py)`")


def modules() -> set[str]:
    """The package's modules as paths, from pyproject's list of folders; and the C library's files."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [ROOT.joinpath(*package.split(".")[1:]) for package in packages]
    found = {str(path.relative_to(ROOT)) for folder in folders for path in folder.glob("*.py")}
    library = ROOT / "serve" / "cpp"
    native = [library / "CMakeLists.txt", *library.glob("include/*"), *library.glob("src/*")]
    found |= {str(path.relative_to(ROOT)) for path in native}
    return {path for path in found if not path.endswith("__init__.py")}


def fenced(heading: str) -> list[str]:
    """The lines of the first fenced block behind a heading that are not empty."""
    block = PAGE.partition(f"\n### {heading}\n")[2].split("\n```\n")[1]
    return [line for line in block.splitlines() if line]


def indexed() -> list[tuple[str, str]]:
    """(path, what is said of it) of every line of the index; folders end with "/", what is in them is indented."""
    folders: list[str] = []
    lines = []
    for line in fenced("The rooms"):
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, words = line.strip().partition(" ")
        lines.append(("".join(folders[:depth]) + name, words.strip()))
        folders[depth:] = [name] if name.endswith("/") else []
    return lines


def test_the_index_names_every_module_and_nothing_else() -> None:
    paths = [path for path, _ in indexed()]
    named = {path for path in paths if not path.endswith("/")}
    assert not modules() - named, "not in the index of docs/design.md"
    assert not named - modules(), "in the index of docs/design.md, but not there"
    assert len(paths) == len(set(paths))


def test_every_line_of_the_index_is_read_at_a_glance() -> None:
    assert [path for path, words in indexed() if not words or len(words) > 80] == []


def test_a_request_goes_through_files_that_are_there_each_once() -> None:
    way = [line.split()[0] for line in fenced("One request, in a straight line")]
    assert not set(way) - modules()
    assert len(way) == len(set(way)) > 10


def test_types_and_lengths_have_the_owners_that_the_page_says() -> None:
    owners = OWNER.findall(PAGE)
    assert len(owners) > 60
    absent = []
    for name, attribute, path in owners:
        text = (ROOT / path).read_text() if (ROOT / path).exists() else ""
        defined = re.search(rf"^(class |def |){name}\b[ (:=]", text, re.MULTILINE)
        if not defined or (attribute and not re.search(rf"(^    |\bdef |self\.){attribute}\b", text, re.MULTILINE)):
            absent.append(f"{name}{attribute and '.'}{attribute} in {path}")
    assert absent == []
