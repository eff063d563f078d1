"""A CUDA runtime in host memory: Polygraphy loads and drives it as it does the real one.

It refuses what a GPU would not survive: addresses outside of what was allocated, rows longer than their
pitch, memory beyond a limit. New memory is full of 0xFF (NaN in every float type).
"""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = r"""
#include <stdlib.h>
#include <string.h>
typedef unsigned char byte;
typedef struct { byte *start; size_t size; } Allocation;
static Allocation live[4096];
static int count, gpus = 1, major = 9, minor;
static size_t used, total = (size_t)1 << 30;
static long rows_copied;

void fake_reset(int g, int m, int n, size_t t) { gpus = g; major = m; minor = n; total = t; rows_copied = 0; }
size_t fake_used(void) { return used; }
long fake_rows_copied(void) { return rows_copied; }

int fake_inside(const void *p, size_t size) {
    for (int i = 0; i < count; i++)
        if ((byte *)p >= live[i].start && (byte *)p + size <= live[i].start + live[i].size) return 1;
    return 0;
}
static int checked(void *to, const void *from, size_t size, int kind) {
    if ((kind == 1 || kind == 3) && !fake_inside(to, size)) return 1;
    if ((kind == 2 || kind == 3) && !fake_inside(from, size)) return 1;
    memcpy(to, from, size);
    return 0;
}
int cudaGetDeviceCount(int *n) { *n = gpus; return gpus ? 0 : 100; }
int cudaGetDevice(int *d) { *d = 0; return 0; }
int cudaDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? major : minor; return a == 75 || a == 76 ? 0 : 1; }
int cudaMemGetInfo(size_t *f, size_t *t) { *f = total - used; *t = total; return 0; }
int cudaStreamCreate(void **s) { *s = malloc(1); return 0; }
int cudaStreamDestroy(void *s) { free(s); return 0; }
int cudaStreamSynchronize(void *s) { return s ? 0 : 400; }
int cudaMalloc(void **p, size_t size) {
    size_t whole = (size + 255) / 256 * 256;
    if (used + whole > total || count == 4096) return 2;
    *p = aligned_alloc(256, whole);
    memset(*p, 0xFF, whole);
    live[count++] = (Allocation){*p, size};
    used += whole;
    return 0;
}
int cudaFree(void *p) {
    for (int i = 0; i < count; i++)
        if (live[i].start == p) {
            used -= (live[i].size + 255) / 256 * 256;
            live[i] = live[--count];
            free(p);
            return 0;
        }
    return p ? 1 : 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *s) {
    return s ? checked(to, from, size, kind) : 400;
}
int cudaMemcpy2DAsync(
    void *to, size_t tp, const void *from, size_t fp, size_t width, size_t height, int kind, void *s
) {
    if (!s) return 400;
    if (width > tp || width > fp) return 12;
    for (size_t i = 0; i < height; i++, rows_copied++)
        if (checked((byte *)to + i * tp, (const byte *)from + i * fp, width, kind)) return 1;
    return 0;
}
"""


class FakeCuda:
    """What tests set and see of it."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.fake_inside.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._library.fake_used.restype = ctypes.c_size_t
        self._library.fake_rows_copied.restype = ctypes.c_long

    def reset(self, *, gpus: int = 1, capability: tuple[int, int] = (9, 0), memory: int = 1 << 30) -> None:
        """So many GPUs of a compute capability with so many bytes."""
        self._library.fake_reset(gpus, *capability, ctypes.c_size_t(memory))

    def inside(self, address: int, size: int) -> bool:
        """Whether these bytes belong to one allocation."""
        return bool(self._library.fake_inside(address, size))

    @property
    def used(self) -> int:
        """Bytes allocated now."""
        return int(self._library.fake_used())

    @property
    def rows_copied(self) -> int:
        """Rows that were copied on the device since the last reset."""
        return int(self._library.fake_rows_copied())


@contextmanager
def fake_gpu(folder: Path) -> Iterator[FakeCuda]:
    """Within, Polygraphy finds this CUDA runtime, compiled into `folder`, and fake_tensorrt.py as `tensorrt`.

    Skips where Polygraphy or a C compiler is not here.
    """
    cuda = pytest.importorskip("polygraphy.cuda.cuda")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of the CUDA runtime")
    import fake_tensorrt
    import fake_tensorrt_rtx

    library = folder / "libcudart.so.13"
    (folder / "cudart.c").write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, folder / "cudart.c"], check=True)
    gpu = FakeCuda(library)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", str(folder))
        patch.setattr(cuda, "G_CUDA", None)
        patch.setitem(sys.modules, "tensorrt", fake_tensorrt)
        patch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt_rtx)
        _forget_tensorrt()
        yield gpu
    _forget_tensorrt()


def _forget_tensorrt() -> None:
    """Have Polygraphy import `tensorrt` anew: its modules remember the first."""
    for name, module in list(sys.modules.items()):
        lazy = vars(module).get("trt") if name.startswith("polygraphy.") else None
        if type(lazy).__name__ == "LazyModule":
            object.__setattr__(lazy, "module", None)
