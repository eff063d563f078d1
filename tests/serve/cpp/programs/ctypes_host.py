"""A Python process that loads the C library: ctypes_host.py LIBRARY BUNDLE CDLL|PyDLL prints lists' items as JSON.

By CDLL, calls let go of the GIL; by PyDLL, they hold it when the library is entered, on every thread.
"""

import ctypes
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from specbeam.runtime import Recommender

library = {"CDLL": ctypes.CDLL, "PyDLL": ctypes.PyDLL}[sys.argv[3]](sys.argv[1])
library.specbeam_last_error.restype = ctypes.c_char_p
library.specbeam_result_item.restype = ctypes.c_char_p
library.specbeam_result_size.restype = ctypes.c_size_t
library.specbeam_result_size.argtypes = [ctypes.c_void_p]
library.specbeam_result_item.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
library.specbeam_result_free.argtypes = library.specbeam_pending_free.argtypes = [ctypes.c_void_p]
library.specbeam_wait.argtypes = [ctypes.c_void_p, ctypes.c_double, ctypes.POINTER(ctypes.c_void_p)]
library.specbeam_close.argtypes = [ctypes.c_void_p]
NOTICE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def check(status: int) -> None:
    if status:
        raise SystemExit(f"{status}: {library.specbeam_last_error().decode()}")


def passed(items: list[str]) -> tuple[object, ctypes.c_size_t]:
    return (ctypes.c_char_p * len(items))(*map(str.encode, items)), ctypes.c_size_t(len(items))


def read(result: ctypes.c_void_p) -> list[str]:
    found = [
        library.specbeam_result_item(result, rank).decode() for rank in range(library.specbeam_result_size(result))
    ]
    library.specbeam_result_free(result)
    return found


def recommend(items: list[str]) -> list[str]:
    result = ctypes.c_void_p()
    check(library.specbeam_recommend(engine, *passed(items), None, ctypes.byref(result)))
    return read(result)


def submit(items: list[str]) -> list[str]:
    """The same, told by a function of Python that the thread which serves calls."""
    told: list[object] = []
    notice = NOTICE(told.append)
    pending, result = ctypes.c_void_p(), ctypes.c_void_p()
    check(library.specbeam_submit(engine, *passed(items), None, ctypes.byref(pending)))
    check(library.specbeam_notify(pending, notice, None))
    check(library.specbeam_wait(pending, -1.0, ctypes.byref(result)))
    while not told:
        pass
    library.specbeam_pending_free(pending)
    return read(result)


engine = ctypes.c_void_p()
check(library.specbeam_open(sys.argv[2].encode(), None, ctypes.byref(engine)))
histories = [[str(i), str(i + 1)] for i in range(30)]
with ThreadPoolExecutor(6) as pool:
    lists = list(pool.map(recommend, histories))
    again = list(pool.map(submit, histories))
own = [[entry.item for entry in one.items] for one in Recommender.open(sys.argv[2]).recommend(histories, 20)]
library.specbeam_close(engine)
print(json.dumps({"same": lists == own, "told": again == own, "count": len(own[0]), "process": os.getpid()}))
