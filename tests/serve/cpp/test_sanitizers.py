"""The C library under what watches memory and threads: AddressSanitizer, LeakSanitizer, UndefinedBehaviorSanitizer,
ThreadSanitizer and Valgrind. Each is also shown a fault of the program's own, and reports it: it does watch."""

import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cpp_library import PATIENCE, Library, built
from tiny_bundle import Tiny

pytestmark = pytest.mark.services
SUPPRESSIONS = Path(__file__).parent / "suppressions"
MEMORY = {
    "ASAN_OPTIONS": "detect_leaks=1",
    "LSAN_OPTIONS": f"suppressions={SUPPRESSIONS / 'leaks.txt'}:print_suppressions=0",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
# The interpreter is not built for it: what is only in the interpreter is not looked at.
THREADS = {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1"}


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exercise(built(tmp_path_factory.mktemp("memory"), "address,undefined"))


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exercise(built(tmp_path_factory.mktemp("threads"), "thread"))


def exercise(library: Library) -> Path:
    return library.program("exercise.cpp")


def run(*command: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, env=os.environ | environment)


def last(text: str) -> str:
    """The end of a report, which may be of thousands of lines."""
    return text[-6000:]


def test_memory_is_neither_misused_nor_leaked(memory: Path, tiny: Tiny) -> None:
    done = run(memory, tiny.bundle, **MEMORY)
    assert (done.returncode, done.stdout) == (0, "done\n"), last(done.stderr)
    assert "runtime error" not in done.stderr, last(done.stderr)


@pytest.mark.parametrize(("fault", "report"), [
    ("leak", "detected memory leaks"), ("dangling", "heap-use-after-free"), ("overflow", "signed integer overflow"),
])  # fmt: skip
def test_misused_memory_would_be_seen(memory: Path, tiny: Tiny, fault: str, report: str) -> None:
    done = run(memory, tiny.bundle, fault, **MEMORY)
    assert done.returncode != 0
    assert report in done.stderr, last(done.stderr)
    assert " ill" in done.stderr


def test_threads_do_not_race(threads: Path, tiny: Tiny) -> None:
    done = run(threads, tiny.bundle, **THREADS)
    assert (done.returncode, done.stdout) == (0, "done\n"), last(done.stderr)
    assert "WARNING" not in done.stderr, last(done.stderr)


def test_a_race_would_be_seen(threads: Path, tiny: Tiny) -> None:
    done = run(threads, tiny.bundle, "race", **THREADS)
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr
    assert " in ill" in done.stderr


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_valgrind_sees_the_faults_of_the_program_and_no_others(library: Library, tiny: Tiny, tmp_path: Path) -> None:
    """Python objects as well: its memory is the system's here."""
    report = tmp_path / "report.xml"
    done = run(
        "valgrind", "-q", "--num-callers=16", "--leak-check=full", "--show-leak-kinds=definite",
        f"--suppressions={SUPPRESSIONS / 'valgrind.txt'}", "--xml=yes", f"--xml-file={report}",
        exercise(library), tiny.bundle, "leak", "dangling", PYTHONMALLOC="malloc",
    )  # fmt: skip
    assert done.returncode == 0, last(done.stderr)
    errors = ElementTree.parse(report).findall("error")
    own = [error for error in errors if "ill" in [name.text for name in error.iter("fn")]]
    assert {error.findtext("kind") for error in own} >= {"InvalidRead", "Leak_DefinitelyLost"}
    assert not [ElementTree.tostring(error, "unicode") for error in errors if error not in own]
