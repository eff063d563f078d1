"""The C library's allocator: what it keeps of memory that was freed. Of glibc's; others' do as they do."""

import ctypes
from contextlib import suppress
from functools import cache
from typing import Any

# glibc's malloc.h, "mallopt": sizes from which an allocation is a mapping of its own, which ends when it is freed, and
# from which free memory at a heap's top is given back. By default both grow with what is freed, to 32 and 64 MiB.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGE = 256 << 10


@cache
def _library() -> Any:
    with suppress(OSError):
        return ctypes.CDLL(None)
    return None


def give_back_what_is_freed() -> None:
    """From now on, in all of this process: slower for what is large, and nothing that is free counts as taken."""
    with suppress(AttributeError):
        _library().mallopt(MMAP_THRESHOLD, LARGE)
        _library().mallopt(TRIM_THRESHOLD, LARGE)
    give_back()


def give_back() -> None:
    """What is free now."""
    with suppress(AttributeError):
        _library().malloc_trim(0)
