"""Processes that the C library is in: one that loads it itself, Python, a host with its own Python, a forked one."""

import json
import re
import sys
import sysconfig
from pathlib import Path

import pytest

from cpp_library import PROGRAMS, Library, told
from cpp_requests import recommender
from tiny_bundle import Tiny

pytestmark = pytest.mark.services
INVALID, PYTHON = "1", "2"


def expected(tiny: Tiny, *items: str) -> list[str]:
    [one] = recommender(tiny).recommend([items], 20)
    return [entry.item for entry in one.items]


def test_a_program_that_loads_it_for_itself_alone(library: Library, tiny: Tiny) -> None:
    """Python's modules find libpython, though the library was not loaded for all."""
    program = library.program("dlopen.c", f"-I{library.prefix / 'include'}", "-ldl")
    needed = told("readelf", "-d", program)
    assert "libspecbeam" not in needed
    assert "libpython" not in needed
    assert told(program, library.file, tiny.bundle, "1", "2").split() == expected(tiny, "1", "2")


@pytest.mark.parametrize("kind", ["CDLL", "PyDLL"])
def test_a_python_process(library: Library, tiny: Tiny, kind: str) -> None:
    found = json.loads(told(sys.executable, PROGRAMS / "ctypes_host.py", library.file, tiny.bundle, kind))
    assert (found["same"], found["told"], found["count"]) == (True, True, 20)


def test_a_child_of_a_python_process_is_told(library: Library, tiny: Tiny) -> None:
    status, _, said = told(sys.executable, PROGRAMS / "ctypes_fork.py", library.file, tiny.bundle).partition(" ")
    assert status == INVALID
    assert "of which this one is a fork" in said


def linked_to_python() -> list[str]:
    """How a program is built that embeds Python itself."""
    folder, version = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDVERSION")
    return [f"-I{sysconfig.get_path('include')}", f"-L{folder}", f"-Wl,-rpath,{folder}", f"-lpython{version}"]


def test_a_host_with_an_interpreter_of_its_own(library: Library, tiny: Tiny) -> None:
    """Its threads may hold the GIL or not; it ends its Python by itself."""
    program = library.program("own_python.cpp", *library.flags(), *linked_to_python())
    numbers, items = told(program, sys.executable, tiny.bundle).splitlines()
    assert numbers == "181 180 0"
    assert items.split() == expected(tiny, "1", "2", "7")


def test_a_forked_child_opens_its_own_or_is_told(library: Library, tiny: Tiny) -> None:
    lines = [line.split("\t") for line in told(library.program("fork.c"), tiny.bundle).splitlines()]
    found = {name: (status, said) for name, status, said in lines}
    for name in ("open", "recommend", "tokens", "submit", "filter", "wait"):
        status, said = found.pop(name)
        assert status == (PYTHON if name == "open" else INVALID), name
        assert re.search("this process was forked|of which this one is a fork", said)
        assert re.search("Fork first,? and open bundles then", said)
    assert found == dict.fromkeys(("first child", "size", "parent"), ("20", "")) | {"second child": ("7", "")}


def test_the_hosts_signals_locale_and_arguments_stay_its_own(library: Library, tiny: Tiny) -> None:
    before, after = told(library.program("state.c"), tiny.bundle).splitlines()
    assert before == after
    assert "SIGINT 0 SIGPIPE 0" in before


def test_python_hosts_import_nothing_twice(library: Library, tiny: Tiny, tmp_path: Path) -> None:
    """The library uses the package that the process has."""
    script = tmp_path / "host.py"
    script.write_text(
        "import ctypes, sys, specbeam.serve.embedded as before\n"
        f"library, engine = ctypes.CDLL({str(library.file)!r}), ctypes.c_void_p()\n"
        f"assert library.specbeam_open({str(tiny.bundle).encode()!r}, None, ctypes.byref(engine)) == 0\n"
        "assert sys.modules['specbeam.serve.embedded'] is before\n"
        "print('left open')\n"
    )
    assert told(sys.executable, script) == "left open\n"
