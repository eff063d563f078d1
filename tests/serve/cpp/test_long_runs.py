"""The C library for long: many calls of many threads, and opened again and again; nothing grows."""

import json

import pytest

from cpp_library import Library, told
from cpp_requests import SETTINGS
from tiny_bundle import Tiny

pytestmark = pytest.mark.services
THREADS, CALLS, TIMES = 8, 10_000, 50
MOST_KIB = 4096  # of growth: what malloc's arenas differ by, and 50 bytes a call


def test_many_calls_of_many_threads_differ_in_nothing_and_use_no_more_memory(library: Library, tiny: Tiny) -> None:
    found = json.loads(told(library.program("soak.cpp"), tiny.bundle, SETTINGS, THREADS, CALLS))
    print(found)
    assert (found["calls"], found["different"]) == (THREADS * CALLS, 0)
    assert found["end_kib"] - found["warm_kib"] < MOST_KIB, found


def test_opening_and_closing_leaves_no_memory_no_thread_and_no_file(library: Library, tiny: Tiny) -> None:
    lines = told(library.program("reopen.cpp"), tiny.bundle, SETTINGS, TIMES).splitlines()
    times = [[int(number) for number in line.split()] for line in lines]
    assert len(times) == TIMES
    memory, threads, files = zip(*times, strict=True)
    assert len(set(threads)) == len(set(files)) == 1
    assert max(memory[-10:]) - max(memory[10:20]) < MOST_KIB, memory
