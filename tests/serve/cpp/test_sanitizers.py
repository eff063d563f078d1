"""The C library under what watches memory and threads: AddressSanitizer, LeakSanitizer, UndefinedBehaviorSanitizer,
ThreadSanitizer and Valgrind. Each is also shown a fault of the program's own, and reports it: it does watch."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cpp_library import PATIENCE, Library, built
from cpp_requests import SETTINGS
from nan_cases import marked
from tiny_bundle import Tiny, break_rows

pytestmark = pytest.mark.services
SUPPRESSIONS = Path(__file__).parent / "suppressions"
MEMORY = {
    "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1",
    "LSAN_OPTIONS": f"suppressions={SUPPRESSIONS / 'leaks.txt'}:print_suppressions=0",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
# The interpreter is not built for it: what is only in the interpreter is not looked at.
THREADS = {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1:allocator_may_return_null=1"}
ENDS = ["closed_on_their_way", "freed_on_their_way", "freed_where_it_ends", "several_threads_wait"]


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return built(tmp_path_factory.mktemp("memory"), "address,undefined")


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return built(tmp_path_factory.mktemp("threads"), "thread")


def run(*command: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, env=os.environ | environment)


def clean(*command: object, **environment: str) -> str:
    """What a command prints that must end well, without a report. A report may be of thousands of lines."""
    done = run(*command, **environment)
    assert done.returncode == 0, done.stderr[-6000:]
    assert not re.search("runtime error|Sanitizer: (?!failed to allocate)", done.stderr), done.stderr[-6000:]
    return done.stdout


def test_memory_is_neither_misused_nor_leaked(memory: Library, tiny: Tiny) -> None:
    assert clean(memory.program("exercise.cpp"), tiny.bundle, **MEMORY) == "done\n"


@pytest.mark.parametrize(("fault", "report"), [
    ("leak", "detected memory leaks"), ("dangling", "heap-use-after-free"), ("overflow", "signed integer overflow"),
])  # fmt: skip
def test_misused_memory_would_be_seen(memory: Library, tiny: Tiny, fault: str, report: str) -> None:
    done = run(memory.program("exercise.cpp"), tiny.bundle, fault, **MEMORY)
    assert done.returncode != 0
    assert report in done.stderr, done.stderr[-6000:]
    assert " ill" in done.stderr


def test_threads_do_not_race(threads: Library, tiny: Tiny) -> None:
    assert clean(threads.program("exercise.cpp"), tiny.bundle, **THREADS) == "done\n"


def test_a_race_would_be_seen(threads: Library, tiny: Tiny) -> None:
    done = run(threads.program("exercise.cpp"), tiny.bundle, "race", **THREADS)
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr
    assert "exercise.cpp" in done.stderr


@pytest.mark.parametrize("case", ENDS)
def test_requests_end_in_any_order(memory: Library, threads: Library, tiny: Tiny, case: str) -> None:
    clean(memory.program("pending.cpp"), tiny.bundle, SETTINGS, case, **MEMORY)
    clean(threads.program("pending.cpp"), tiny.bundle, SETTINGS, case, **THREADS)


def test_errors_leave_nothing(memory: Library, tiny: Tiny, bundle: Path) -> None:
    token, item, _ = marked(tiny)
    break_rows(bundle, [token])
    assert clean(memory.program("errors.c"), tiny.bundle, SETTINGS, bundle, item, **MEMORY)


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_valgrind_sees_the_faults_of_the_program_and_no_others(library: Library, tiny: Tiny, tmp_path: Path) -> None:
    """Python objects as well: its memory is the system's here."""
    report = tmp_path / "report.xml"
    done = run(
        "valgrind", "-q", "--num-callers=16", "--leak-check=full", "--show-leak-kinds=definite",
        f"--suppressions={SUPPRESSIONS / 'valgrind.txt'}", "--xml=yes", f"--xml-file={report}",
        library.program("exercise.cpp"), tiny.bundle, "leak", "dangling", PYTHONMALLOC="malloc",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    errors = ElementTree.parse(report).findall("error")
    own = [error for error in errors if "ill" in [name.text for name in error.iter("fn")]]
    assert {error.findtext("kind") for error in own} >= {"InvalidRead", "Leak_DefinitelyLost"}
    assert not [ElementTree.tostring(error, "unicode") for error in errors if error not in own]
