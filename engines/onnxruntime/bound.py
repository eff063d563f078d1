"""ONNX Runtime sessions on memory of ours: tensors stay on the device, and shapes that come again are captured.

Rules of CUDA graphs, from ONNX Runtime's page "CUDA Execution Provider" and its run option `gpu_graph_id`: what is
bound lies at the same addresses in every run of one id; -1 runs without capturing; a captured graph lives as long
as its session, and belongs to the thread that captured it; one run at a time.
"""

from collections import OrderedDict
from threading import RLock, get_ident
from typing import NamedTuple

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from ...catalog.errors import EngineError
from ..base import Float32, Int64
from ..memory import Allocator

# ONNX's numbers of types (NumPy lacks bfloat16), and the bytes of one element.
FLOAT32, INT64 = 1, 7
CACHE_TYPES: dict[str, tuple[int, int]] = {"fp32": (FLOAT32, 4), "fp16": (10, 2), "bf16": (16, 2)}
BINDINGS = 256  # kept of a session, the latest used
GRAPHS = 64  # captured of a session at most: none can be let go while the session lives
# A capture fails if any thread of the process allocates on the device or copies meanwhile.
DEVICE = RLock()


class Tensors(NamedTuple):
    """Tensors of one type and shape, `stride` bytes from one to the next, on a session's device."""

    names: tuple[str, ...]
    element: int  # ONNX's number of the type
    shape: tuple[int, ...]
    address: int
    stride: int = 0


class BoundSession:
    """A session that runs on given memory; bindings are remembered by all that they bind.

    With `cuda_graphs`, what is run a second time is captured. That the key of a captured graph holds every
    address and shape makes a replay on other memory impossible.
    """

    def __init__(self, session: ort.InferenceSession, device: str, *, cuda_graphs: bool = False) -> None:
        self.session = session
        self._device, self._capturing = device, cuda_graphs
        self._bindings: OrderedDict[tuple[Tensors, ...], ort.IOBinding] = OrderedDict()
        self._graphs: dict[tuple[int, tuple[Tensors, ...]], int] = {}

    def run(self, inputs: tuple[Tensors, ...], outputs: tuple[Tensors, ...]) -> ort.IOBinding:
        """One run, done when this returns. Raises what ONNX Runtime raises; the caller holds `DEVICE`."""
        key = inputs + outputs
        again = key in self._bindings
        binding = self._bindings[key] if again else self._bound(inputs, outputs)
        self._bindings[key] = binding
        self._bindings.move_to_end(key)
        if len(self._bindings) > BINDINGS:
            self._bindings.popitem(last=False)
        graph = self._graph(key, again)
        try:
            self._run(binding, graph)
        except Exception:
            if graph is None:
                raise
            self._capturing = False  # what cannot be captured may run all the same
            self._run(binding, None)
        return binding

    def _bound(self, inputs: tuple[Tensors, ...], outputs: tuple[Tensors, ...]) -> ort.IOBinding:
        binding = self.session.io_binding()
        for bind, groups in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for names, element, shape, address, stride in groups:
                for number, name in enumerate(names):
                    bind(name, self._device, 0, element, shape, address + number * stride)
        return binding

    def _graph(self, key: tuple[Tensors, ...], again: bool) -> int | None:
        """The number of the captured graph to replay or to capture; None to run without."""
        mine = get_ident(), key
        if self._capturing and again and mine not in self._graphs and len(self._graphs) < GRAPHS:
            self._graphs[mine] = len(self._graphs) + 1
        return self._graphs.get(mine) if self._capturing else None

    def _run(self, binding: ort.IOBinding, graph: int | None) -> None:
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(-1 if graph is None else graph))
        self.session.run_with_iobinding(binding, options)


class OrtMemory(Allocator):
    """Memory of a session's device, from ONNX Runtime's own allocator."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._live: dict[int, ort.OrtValue] = {}  # by address

    def allocate(self, size: int) -> int:
        memory = _allocated(size, np.uint8, self._device)
        address = int(memory.data_ptr())
        self._live[address] = memory
        return address

    def free(self, address: int) -> None:
        del self._live[address]


class Transfers:
    """What crosses between host and device: one copy of all indices in, one of log-probabilities out.

    One buffer a power of two: calls of one shape use the same one.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._up: dict[int, tuple[ort.OrtValue, Int64]] = {}
        self._down: dict[int, ort.OrtValue] = {}

    def upload(self, arrays: dict[str, Int64]) -> tuple[Tensors, ...]:
        """Copy arrays to the device, side by side; they lie there until the next upload."""
        count = sum(array.size for array in arrays.values())
        size = power_of_two(count)
        if size not in self._up:
            self._up[size] = _allocated(size, np.int64, self._device), np.zeros(size, np.int64)
        memory, host = self._up[size]
        np.concatenate([array.ravel() for array in arrays.values()], out=host[:count])
        memory.update_inplace(host)
        tensors, address = [], memory.data_ptr()
        for name, array in arrays.items():
            tensors.append(Tensors((name,), INT64, array.shape, address))
            address += array.nbytes
        return tuple(tensors)

    def result(self, name: str, shape: tuple[int, ...]) -> Tensors:
        """Where an output of float32 goes, until the next result of this size."""
        size = power_of_two(int(np.prod(shape)))
        if size not in self._down:
            self._down[size] = _allocated(size, np.float32, self._device)
        return Tensors((name,), FLOAT32, shape, self._down[size].data_ptr())

    def download(self, binding: ort.IOBinding) -> Float32:
        """A copy of a run's first output on the host."""
        array: Float32 = binding.get_outputs_as_ortvaluevector()[0].numpy()
        return array.copy() if self._device == "cpu" else array  # on the CPU it is a view


def call_failed(error: Exception, batch: int, tokens: int) -> EngineError:
    """What to tell about a call that ONNX Runtime did not make."""
    return EngineError(
        f"ONNX Runtime failed on a call of {batch} requests with {tokens} tokens each: {error}. If it is short of "
        "memory, lower the batch size, the top-k or the draft width."
    )


def _allocated(count: int, dtype: type[np.generic], device: str) -> ort.OrtValue:
    """New memory for `count` numbers."""
    try:
        return ort.OrtValue.ortvalue_from_shape_and_type((count,), dtype, device, 0)
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise EngineError(
            f"The device ({device}) has no room for {count * np.dtype(dtype).itemsize / 2**20:.0f} MiB more: {error}. "
            "Lower the batch size, the top-k or the draft width, or close what else uses it."
        ) from error


def power_of_two(count: int) -> int:
    """The smallest that is at least `count`."""
    return 1 << max(count - 1, 0).bit_length()
