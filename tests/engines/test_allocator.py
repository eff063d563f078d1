"""What was freed is given back where that was asked for."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import numpy as np
from specbeam.engines.machine.allocator import give_back, give_back_what_is_freed
from specbeam.engines.machine.processors import resident_memory
if sys.argv[1] == "asked":
    give_back_what_is_freed()
np.ones(4_000_000)  # freed at once: by default, what is as large comes from the heap from now on
before, kept = resident_memory(), []
for size in range(1, 60):  # caches that grow, and small things that stay in between
    cache = np.ones(size * 60_000)
    kept.append(bytes(2000))
del cache
print(resident_memory() - before)
give_back()
print(resident_memory() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's allocator")
def test_memory_is_given_back() -> None:
    grown = {}
    for asked in ("asked", "not asked"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, asked], capture_output=True, text=True, check=True)
        grown[asked] = [int(word) for word in done.stdout.split()]
    assert grown["asked"][0] < 5_000_000
    assert max(grown["asked"][1], grown["not asked"][1]) < 5_000_000
