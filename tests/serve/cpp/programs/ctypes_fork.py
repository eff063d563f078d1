"""A Python process that forks with an open engine: ctypes_fork.py LIBRARY BUNDLE prints what the child is told."""

import ctypes
import os
import signal
import sys

library = ctypes.CDLL(sys.argv[1])
library.specbeam_last_error.restype = ctypes.c_char_p
engine, result = ctypes.c_void_p(), ctypes.c_void_p()
items = (ctypes.c_char_p * 2)(b"1", b"2")
if library.specbeam_open(sys.argv[2].encode(), None, ctypes.byref(engine)):
    raise SystemExit(library.specbeam_last_error().decode())
if os.fork() == 0:
    signal.alarm(60)  # a child that waits for the thread that it does not have would wait for ever
    status = library.specbeam_recommend(engine, items, ctypes.c_size_t(2), None, ctypes.byref(result))
    library.specbeam_close(engine)
    os.write(1, f"{status} {library.specbeam_last_error().decode()}\n".encode())
    os._exit(0)
_, ended = os.wait()
assert ended == 0, ended
library.specbeam_close(engine)
