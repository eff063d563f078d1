"""The C library as it is built and installed: its symbols, its headers, its version."""

import re
from pathlib import Path

import pytest

import specbeam
from cpp_library import PROGRAMS, SOURCE, WARNINGS, Library, told

pytestmark = pytest.mark.services
HEADER = (SOURCE / "include" / "specbeam.h").read_text()
DECLARED = re.findall(r"^SPECBEAM_API [\w ]+?\*? ?(specbeam_\w+)\(", HEADER, re.MULTILINE)


def test_it_exports_what_the_header_declares_and_nothing_else(library: Library) -> None:
    assert len(DECLARED) == HEADER.count("\nSPECBEAM_API ") > 20
    lines = told("nm", "-D", "--defined-only", library.file).splitlines()
    assert sorted(line.split()[-1] for line in lines) == sorted(DECLARED)


@pytest.mark.parametrize(("compiler", "header"), [
    (["gcc", "-std=c99", "-x", "c"], "specbeam.h"),
    (["gcc", "-std=c17", "-x", "c"], "specbeam.h"),
    (["g++", "-std=c++17", "-x", "c++"], "specbeam.h"),
    (["g++", "-std=c++17", "-x", "c++"], "specbeam.hpp"),
    (["g++", "-std=c++20", "-x", "c++"], "specbeam.hpp"),
])  # fmt: skip
def test_the_headers_compile_alone(library: Library, compiler: list[str], header: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text(f"#include <{header}>\n#include <{header}>\nint main(void) {{ return specbeam_abi() - 1; }}\n")
    made = tmp_path / "program"
    told(*compiler, "-pedantic", *WARNINGS, "-Wshadow", "-Wconversion", source, "-x", "none", "-o", made,
         *library.flags())  # fmt: skip
    told(made)


def test_versions_are_those_of_the_package(library: Library) -> None:
    assert re.findall(r'#define SPECBEAM_VERSION "(.*)"', HEADER) == [specbeam.__version__]
    assert told("pkg-config", "--modversion", "specbeam", **library.environment).strip() == specbeam.__version__
    assert told(library.program("version.c")).split() == [specbeam.__version__, "1"]


def test_an_installed_library_is_all_that_programs_need(library: Library) -> None:
    installed = {str(path.relative_to(library.prefix)) for path in library.prefix.rglob("*") if path.is_file()}
    assert {"include/specbeam.h", "include/specbeam.hpp", "lib/libspecbeam.so", "lib/pkgconfig/specbeam.pc"} < installed
    needed = told("readelf", "-d", library.file)
    assert "[libspecbeam.so.1]" in needed  # the ABI's number, which programs ask for
    assert str(SOURCE) not in needed
    assert PROGRAMS.is_dir()
