"""Device memory and one stream on it, through Polygraphy's wrapper of the CUDA runtime."""

import ctypes
import importlib.util
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.errors import EngineError
from ..catalog.extras import install
from .memory import Allocator

ALIGNMENT = 256  # bytes; what TensorRT asks of every tensor's address, and what CUDA's own allocations have
_MAJOR, _MINOR = 75, 76  # cudaDevAttrComputeCapabilityMajor and -Minor
_TO_DEVICE, _TO_HOST, _ON_DEVICE = ctypes.c_int(1), ctypes.c_int(2), ctypes.c_int(3)  # cudaMemcpyKind


def aligned(size: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class Device(Allocator):
    """The current GPU (`CUDA_VISIBLE_DEVICES` chooses it) and a stream: all that is asked of it happens in order.

    Raises `EngineError` where there is no CUDA runtime, no driver or no GPU, and wherever CUDA fails.
    """

    def __init__(self) -> None:
        _check_polygraphy()
        with _cuda_errors("No NVIDIA GPU can be used here: go where one and its driver are, or choose a CPU"), quiet():
            self._cuda = _cuda_runtime()
            count = ctypes.c_int()
            self._cuda.check(self._cuda.handle.cudaGetDeviceCount(ctypes.byref(count)))
            self._cuda.check(0 if count.value else 100)  # cudaErrorNoDevice
            self.stream = int(self._cuda.create_stream())  # its handle

    def compute_capability(self) -> str:
        """What the GPU can run, e.g. "9.0"."""
        device, values = ctypes.c_int(), (ctypes.c_int(), ctypes.c_int())
        with _cuda_errors("The GPU's compute capability is not known"):
            self._cuda.check(self._cuda.handle.cudaGetDevice(ctypes.byref(device)))
            for value, attribute in zip(values, (_MAJOR, _MINOR), strict=True):
                self._cuda.check(self._cuda.handle.cudaDeviceGetAttribute(ctypes.byref(value), attribute, device))
        return ".".join(str(value.value) for value in values)

    def memory(self) -> int:
        """Bytes of the GPU's memory."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        with _cuda_errors("The GPU's memory is not known"):
            self._cuda.check(self._cuda.handle.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)))
        return total.value

    def allocate(self, size: int) -> int:
        with (
            _cuda_errors(f"The GPU has no {size / 2**20:.0f} MiB left; lower the batch size, or close what uses it"),
            quiet(),
        ):
            return int(self._cuda.malloc(max(size, 1)))

    def free(self, address: int) -> None:
        self.synchronize()
        with _cuda_errors("Freeing the GPU's memory failed"):
            self._cuda.free(address)

    def upload(self, address: int, array: NDArray[np.generic]) -> None:
        """Copy a contiguous array to the device; it must live until `synchronize`."""
        self._copy(address, array.ctypes.data, array.nbytes, _TO_DEVICE)

    def download(self, array: NDArray[np.generic], address: int) -> None:
        """Fill a contiguous array from the device; it is complete after `synchronize`."""
        self._copy(array.ctypes.data, address, array.nbytes, _TO_HOST)

    def copy_rows(self, to: int, to_pitch: int, source: int, pitch: int, *, width: int, rows: int) -> None:
        """Copy `rows` rows of `width` bytes on the device, `pitch` bytes from one to the next."""
        places = ctypes.c_void_p(to), ctypes.c_size_t(to_pitch), ctypes.c_void_p(source), ctypes.c_size_t(pitch)
        size, stream = (ctypes.c_size_t(width), ctypes.c_size_t(rows)), ctypes.c_void_p(self.stream)
        with _cuda_errors("Copying on the GPU failed"):
            self._cuda.check(self._cuda.handle.cudaMemcpy2DAsync(*places, *size, _ON_DEVICE, stream))

    def synchronize(self) -> None:
        """Wait until all is done."""
        with _cuda_errors("The GPU failed while it computed"):
            self._cuda.stream_synchronize(self.stream)

    def close(self) -> None:
        """Give the stream back; nothing may be asked any more."""
        with _cuda_errors("Closing the GPU's stream failed"):
            self._cuda.destroy_stream(self.stream)

    def _copy(self, to: int, source: int, size: int, kind: object) -> None:
        with _cuda_errors("Copying to or from the GPU failed"):
            self._cuda.memcpy(to, source, size, kind, self.stream)


@contextmanager
def _cuda_errors(what: str) -> Iterator[None]:
    """Polygraphy's errors (and the loader's) as ours."""
    from polygraphy.exception import PolygraphyException  # type: ignore[import-untyped]

    try:
        yield
    except (PolygraphyException, OSError) as error:
        raise EngineError(f"{what}: {error}") from error


def quiet() -> AbstractContextManager[object]:
    """Polygraphy prints what it raises, and more; not within this."""
    from polygraphy.logger import G_LOGGER  # type: ignore[import-untyped]

    silence: AbstractContextManager[object] = G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1)
    return silence


def _check_polygraphy() -> None:
    try:
        import polygraphy.cuda  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        remedy = install("tensorrt", only="polygraphy")
        raise EngineError(f"Polygraphy is not usable here ({error}). Run: {remedy}") from error


def _cuda_runtime() -> Any:
    """Polygraphy's wrapper. It finds the CUDA runtime in pip's folders up to CUDA 12: show it the later ones."""
    from polygraphy import cuda

    spec, name = importlib.util.find_spec("nvidia"), "LD_LIBRARY_PATH"
    roots = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    folders = sorted(str(folder) for root in roots for folder in Path(root).glob("cu[0-9]*/lib"))
    before = os.environ.get(name)
    os.environ[name] = os.pathsep.join([*filter(None, [before]), *folders])
    try:
        return cuda.wrapper()
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def packed(arrays: dict[str, NDArray[Any]]) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """Arrays behind each other in one buffer, aligned, and where each begins: one upload for all."""
    offsets, size = {}, 0
    for name, array in arrays.items():
        offsets[name] = size
        size += aligned(max(array.nbytes, 1))
    buffer = np.zeros(size, np.uint8)
    for name, array in arrays.items():
        buffer[offsets[name] : offsets[name] + array.nbytes] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    return buffer, offsets
