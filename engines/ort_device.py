"""ONNX Runtime with everything on the device: a call brings indices and takes log-probabilities, nothing else.

Made for CUDA; it runs on the CPU, too, where the tests hold it against the plain engine.
"""

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from ..catalog.errors import EngineError
from .base import Engine, Float32, ForwardInputs, Int64, KVCache
from .buckets import bucket, padded_tokens
from .device import aligned
from .facts import ModelFacts, Precision
from .ort_bound import (
    CACHE_TYPES,
    DEVICE,
    BoundSession,
    DeviceMemory,
    Lease,
    Tensors,
    Transfers,
    call_failed,
)

GATHER = "gather.onnx"  # beside the model's graph; written by graphs/gather.py


class DeviceCache(KVCache):
    """Keys and values of every layer, one behind the other in one piece of device memory.

    No call writes into memory that a cache refers to, so copies share it, and a call's two pieces take turns.
    """

    def __init__(self, engine: "DeviceEngine", batch: int) -> None:
        self._engine, self._batch, self._length = engine, batch, 0
        self._memory: Lease | None = None

    @property
    def batch(self) -> int:
        return self._batch

    @property
    def length(self) -> int:
        return self._length

    @property
    def memory(self) -> Lease | None:
        """Where it lies; None while it is empty."""
        return self._memory

    def hold(self, memory: Lease | None, batch: int, length: int) -> None:
        """Have other content from now on; the old is given back unless a copy has it, too."""
        self._memory, self._batch, self._length = memory, batch, length

    def copy(self) -> "DeviceCache":
        other = DeviceCache(self._engine, self._batch)
        other.hold(self._memory, self._batch, self._length)
        return other

    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        if slots is None and np.array_equal(rows, np.arange(self._batch)):
            return
        kept = np.broadcast_to(np.arange(self._length), (len(rows), self._length)) if slots is None else slots
        memory = self._engine.gathered(self, rows, kept) if kept.size else None
        self.hold(memory, len(rows), kept.shape[1])


class DeviceEngine(Engine):
    """A graph with index inputs (`visible_below`, `visible_slots`) and a gather graph, run on one device's memory.

    Calls are padded to sizes that come again (engines/buckets.py): the cache grows by the padded number. Threads
    may share it; one call at a time is on the device.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        gather: ort.InferenceSession,
        facts: ModelFacts,
        precision: Precision,
        device: str,
        *,
        cuda_graphs: bool = False,
    ) -> None:
        """precision: of the cache; cuda_graphs: both sessions were opened to capture them."""
        shapes = {value.name: value.shape for value in [*session.get_inputs(), *session.get_outputs()]}
        if not isinstance(shapes.get("visible_slots", [None])[-1], int):
            raise EngineError(
                "The graph has no input visible_slots of a fixed last axis, which an engine on a device needs. "
                "Build the engine again."
            )
        super().__init__(columns=int(shapes["logprobs"][2]))
        self._path = int(shapes["visible_slots"][2])  # slots that a token may name
        self._heads, self._width = facts.kv_heads, facts.head_dim
        self._element, self._bytes = CACHE_TYPES[precision]
        self._model = BoundSession(session, device, cuda_graphs=cuda_graphs)
        self._gather = BoundSession(gather, device, cuda_graphs=cuda_graphs)
        self._memory, self._transfers = DeviceMemory(device), Transfers(device)
        parts = [f"{i}.{part}" for i in range(facts.layers) for part in ("key", "value")]
        self._past = tuple(f"past_key_values.{part}" for part in parts)
        self._present = tuple(f"present.{part}" for part in parts)

    def new_cache(self, batch: int) -> DeviceCache:
        return DeviceCache(self, batch)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        if not isinstance(cache, DeviceCache):
            raise EngineError(f"This engine runs on the caches it hands out (new_cache); got {type(cache).__name__}.")
        (batch, new), count = inputs.input_ids.shape, inputs.logit_rows.shape[1]
        length = cache.length + padded_tokens(cache.length, new)
        small = self._padded(inputs, length - cache.length, bucket(count))
        with DEVICE:
            memory = self._memory.take(self._size(batch, length))
            # A past of no slots has no memory of its own: no address is read, but none may be null.
            past = self._tensors(self._past, cache.memory or memory, batch, cache.length)
            present = self._tensors(self._present, memory, batch, length)
            result = self._transfers.result("logprobs", (batch, bucket(count), self.columns))
            try:
                binding = self._model.run((*self._transfers.upload(small), past), (result, present))
                logprobs = self._transfers.download(binding)
            except Exception as error:  # ONNX Runtime's exceptions share no base of their own
                raise call_failed(error, batch, new) from error
        cache.hold(memory, batch, length)
        return logprobs[:, :count]

    def gathered(self, cache: DeviceCache, rows: Int64, slots: Int64) -> Lease:
        """A copy of the slots `slots[i]` [B', S'] of the rows `rows[i]` of a cache that is not empty."""
        heads, length = self._heads, cache.length
        index = (rows[:, None, None] * heads + np.arange(heads)[:, None]) * length + slots[:, None]  # [B', heads, S']
        source, size = cache.memory, self._size(*slots.shape)
        assert source is not None
        with DEVICE:
            memory = self._memory.take(size)
            past = self._rows(self._past, source, cache.batch, length)
            present = self._rows(self._present, memory, *slots.shape)
            try:
                self._gather.run((*self._transfers.upload({"index": index.ravel()}), past), (present,))
            except Exception as error:
                raise call_failed(error, *slots.shape) from error
        return memory

    def _padded(self, inputs: ForwardInputs, tokens: int, rows: int) -> dict[str, Int64]:
        """The call's small inputs with `tokens` tokens and `rows` rows; what is added sees slot 0."""
        slots = inputs.visible_slots
        if slots.shape[2] > self._path:
            raise EngineError(
                f"A token of this call names {slots.shape[2]} slots, the engine was built for at most {self._path}. "
                "Build it from the bundle whose items it serves."
            )
        paths = np.full((len(slots), tokens, self._path), -1)
        paths[:, : slots.shape[1], : slots.shape[2]] = slots
        return {
            "input_ids": _filled(inputs.input_ids, tokens, 0),
            "position_ids": _filled(inputs.position_ids, tokens, 0),
            "visible_below": _filled(inputs.visible_below, tokens, 1),
            "visible_slots": paths,
            "logit_rows": _filled(inputs.logit_rows, rows, 0),
        }

    def _stride(self, batch: int, length: int) -> int:
        """Bytes from one tensor of a cache to the next."""
        return aligned(batch * self._heads * length * self._width * self._bytes)

    def _size(self, batch: int, length: int) -> int:
        return len(self._past) * self._stride(batch, length)

    def _tensors(self, names: tuple[str, ...], memory: Lease, batch: int, length: int) -> Tensors:
        """A cache as the model's graph reads and writes it."""
        shape = (batch, self._heads, length, self._width)
        return Tensors(names, self._element, shape, memory.address, self._stride(batch, length))

    def _rows(self, names: tuple[str, ...], memory: Lease, batch: int, length: int) -> Tensors:
        """A cache as the gather graph does: one row a slot."""
        shape = (batch * self._heads * length, self._width)
        return Tensors(names, self._element, shape, memory.address, self._stride(batch, length))


def _filled(array: Int64, count: int, value: int) -> Int64:
    """[B, n] widened to [B, count]."""
    out = np.full((len(array), count), value)
    out[:, : array.shape[1]] = array
    return out
