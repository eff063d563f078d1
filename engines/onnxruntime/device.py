"""ONNX Runtime with everything on the device: a call brings indices and takes log-probabilities, nothing else.

Made for CUDA; it runs on the CPU, too, where the tests hold it against the plain engine.
"""

from math import inf

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from ..attention_mask import index_feed
from ..base import Float32, ForwardInputs, Int64
from ..bundle.facts import ModelFacts, Precision
from ..cache import KVCache
from ..cuda import aligned
from ..memory import HeldCache, HoldingEngine, Lease, Pool
from .bound import CACHE_TYPES, DEVICE, BoundSession, OrtMemory, Tensors, Transfers, call_failed, power_of_two
from .buckets import bucket, padded_tokens

GATHER = "gather.onnx"  # beside the model's graph; written by graphs/gather.py
SMALLEST = 1 << 16  # bytes taken for a cache


class DeviceEngine(HoldingEngine):
    """A graph with index inputs (`visible_below`, `visible_slots`) and a gather graph, run on one device's memory.

    Calls are padded to sizes that come again (buckets.py): the cache grows by the padded number. Threads may share it;
    one call at a time is on the device.
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
        super().__init__(columns=int(shapes["logprobs"][2]))
        self._path = int(shapes["visible_slots"][2])  # slots that a token may name
        self._heads, self._width = facts.kv_heads, facts.head_dim
        self._element, self._bytes = CACHE_TYPES[precision]
        self._model = BoundSession(session, device, cuda_graphs=cuda_graphs)
        self._gather = BoundSession(gather, device, cuda_graphs=cuda_graphs)
        # Captured graphs are bound to addresses: few pieces for all sizes.
        self._pool, self._transfers = Pool(OrtMemory(device), most=inf), Transfers(device)
        self._past = tuple(f"past_key_values.{name}" for name in facts.cache_names)
        self._present = tuple(f"present.{name}" for name in facts.cache_names)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        cache = self.held(cache)
        (batch, new), count = inputs.input_ids.shape, inputs.logit_rows.shape[1]
        length = cache.length + padded_tokens(cache.length, new)
        small = index_feed(
            inputs,
            tokens=length - cache.length,
            rows=bucket(count),
            path=self._path,
            remedy="Build it from the bundle whose items it serves.",
        )
        with DEVICE:
            memory = self._pool.take(self._size(batch, length))
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

    def kept(self, cache: HeldCache, rows: Int64, slots: Int64 | None) -> Lease:
        if slots is None:
            slots = np.broadcast_to(np.arange(cache.length), (len(rows), cache.length))
        with DEVICE:
            memory = self._pool.take(self._size(*slots.shape))
            self._copy(cache, rows, slots, self._rows(self._present, memory, *slots.shape))
        return memory

    def joined(self, cache: HeldCache, other: HeldCache) -> Lease:
        batch, length = cache.batch + other.batch, max(cache.length, other.length)
        with DEVICE:
            memory = self._pool.take(self._size(batch, length))
            whole, first = self._rows(self._present, memory, batch, length), 0
            for each in (cache, other):
                slot = np.arange(length)
                slots = np.broadcast_to(np.where(slot < each.length, slot, 0), (each.batch, length))
                shape = (each.batch * self._heads * length, self._width)
                begin = whole.address + first * self._width * self._bytes
                self._copy(each, np.arange(each.batch), slots, whole._replace(shape=shape, address=begin))
                first += shape[0]
        return memory

    def _copy(self, cache: HeldCache, rows: Int64, slots: Int64, to: Tensors) -> None:
        """Copy the slots [B', S'] of the rows [B']; the caller holds `DEVICE`."""
        heads, length, source = self._heads, cache.length, cache.memory
        index = (rows[:, None, None] * heads + np.arange(heads)[:, None]) * length + slots[:, None]  # [B', heads, S']
        assert source is not None
        past = self._rows(self._past, source, cache.batch, length)
        try:
            self._gather.run((*self._transfers.upload({"index": index.ravel()}), past), (to,))
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise call_failed(error, *slots.shape) from error

    def _stride(self, batch: int, length: int) -> int:
        """Bytes from one tensor of a cache to the next."""
        return aligned(batch * self._heads * length * self._width * self._bytes)

    def _size(self, batch: int, length: int) -> int:
        """Bytes to take for a cache: sizes, too, come again."""
        return power_of_two(max(len(self._past) * self._stride(batch, length), SMALLEST))

    def _tensors(self, names: tuple[str, ...], memory: Lease, batch: int, length: int) -> Tensors:
        """A cache as the model's graph reads and writes it."""
        shape = (batch, self._heads, length, self._width)
        return Tensors(names, self._element, shape, memory.address, self._stride(batch, length))

    def _rows(self, names: tuple[str, ...], memory: Lease, batch: int, length: int) -> Tensors:
        """A cache as the gather graph does: one row a slot."""
        shape = (batch * self._heads * length, self._width)
        return Tensors(names, self._element, shape, memory.address, self._stride(batch, length))
