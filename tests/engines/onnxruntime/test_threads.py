"""Threads of sessions: their own, unless a process says that all share theirs."""

import subprocess
import sys

import pytest

from tiny_bundle import Tiny

OPENS = """
import os, sys
import onnxruntime as ort
import specbeam.runtime
from specbeam.catalog.errors import EngineError
from specbeam.engines.onnxruntime.threads import share_threads
from specbeam.runtime import EngineChoice, Recommender

def items(threads):
    recommender = Recommender.open(sys.argv[1], engine=EngineChoice(threads=threads), drafting="none")
    return [item.item for item in recommender.recommend([["1", "2"]], 5)[0].items]

def running():
    return len(os.listdir("/proc/self/task"))
"""
CASES = {
    "no pool is made for a host": """
items(2)
ort.set_global_thread_pool_sizes(1, 1)  # is refused where there is one
""",
    "one pool for all": """
own = items(2)
share_threads(3)
share_threads(3)
before = running()
assert items(4) == items(2) == own
assert running() == before
for other in (2, 4):
    try:
        share_threads(other)
    except EngineError as error:
        assert f"cannot share {other} threads: it has a pool of 3 threads" in str(error), error
    else:
        raise AssertionError
""",
    "a host's own": """
ort.set_global_thread_pool_sizes(2, 1)
try:
    items(2)
except EngineError as error:
    assert "call share_threads(None) of specbeam.engines.onnxruntime.threads" in str(error), error
else:
    raise AssertionError
try:
    share_threads(2)
except EngineError as error:
    assert "it has a pool that somebody else made" in str(error), error
else:
    raise AssertionError
share_threads(None)
before = running()
assert len(items(4)) == 5
assert running() == before
""",
}


@pytest.mark.parametrize("case", CASES)
def test_threads(tiny: Tiny, case: str) -> None:
    code = OPENS + CASES[case]  # in a process of its own: a pool is for good
    done = subprocess.run([sys.executable, "-c", code, str(tiny.bundle)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
