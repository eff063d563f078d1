"""ONNX Runtime: exported graphs with their dense mask, on the CPU."""

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from ..attention_mask import MASK_TYPES, dense_feed
from ..base import Engine, Float32, ForwardInputs, Int64
from ..bundle.facts import ModelFacts, Precision
from ..cache import KVCache
from ..footprint import footprint_of
from .bound import call_failed


class OrtCache(KVCache):
    """Keys and values of every layer as ONNX Runtime tensors [B, kv_heads, S, head_dim]: outputs become inputs."""

    def __init__(self, values: list[ort.OrtValue]) -> None:
        self.values = values

    @property
    def batch(self) -> int:
        return int(self.values[0].shape()[0])

    @property
    def length(self) -> int:
        return int(self.values[0].shape()[2])

    def copy(self) -> "OrtCache":
        return OrtCache(list(self.values))

    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        heads, length, width = self.values[0].shape()[1:]
        if slots is not None:  # where every kept vector [D] lies: one copy of them is many times faster than by axes
            where = (rows[:, None] * heads + np.arange(heads))[:, :, None] * length + slots[:, None]
        kept = []
        for value in self.values:
            array = value.numpy()
            array = array[rows] if slots is None else np.take(array.reshape(-1, width), where, axis=0)
            kept.append(ort.OrtValue.ortvalue_from_numpy(array))
        self.values = kept

    def join(self, other: KVCache) -> None:
        assert isinstance(other, OrtCache)
        length, batch, joined = max(self.length, other.length), self.batch, []
        for mine, theirs in zip(self.values, other.values, strict=True):
            a, b = mine.numpy(), theirs.numpy()
            array = np.zeros((batch + len(b), a.shape[1], length, a.shape[3]), a.dtype)
            array[:batch, :, : a.shape[2]], array[batch:, :, : b.shape[2]] = a, b
            joined.append(ort.OrtValue.ortvalue_from_numpy(array))
        self.values = joined


class OrtEngine(Engine):
    """A graph of the contract (docs/design.md, section 4) in an ONNX Runtime session on the CPU."""

    def __init__(
        self, session: ort.InferenceSession, facts: ModelFacts, precision: Precision, *, catalog_head: bool = False
    ) -> None:
        """catalog_head: the graph's head has the catalog's columns alone."""
        columns = int(session.get_outputs()[0].shape[2])
        rows = columns if catalog_head else facts.vocabulary
        super().__init__(columns=columns, footprint=footprint_of(facts, precision, columns=columns, rows_of_head=rows))
        self._session, self._facts, self._mask_type = session, facts, MASK_TYPES[precision]
        self._past = [f"past_key_values.{name}" for name in facts.cache_names]
        self._outputs = ["logprobs", *(f"present.{name}" for name in facts.cache_names)]

    def new_cache(self, batch: int) -> OrtCache:
        empty = np.zeros((batch, self._facts.kv_heads, 0, self._facts.head_dim), self._mask_type.dtype)
        return OrtCache([ort.OrtValue.ortvalue_from_numpy(empty) for _ in self._past])

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        assert isinstance(cache, OrtCache)
        return self.called(self.bound(inputs, cache), inputs, cache)

    def called(self, binding: ort.IOBinding, inputs: ForwardInputs, cache: OrtCache) -> Float32:
        """Make a call that was `bound` to this cache, which gets its slots."""
        try:
            self.run(binding)
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise call_failed(error, *inputs.input_ids.shape) from error
        logprobs, *cache.values = binding.get_outputs()
        result: Float32 = logprobs.numpy()
        return result

    def bound(self, inputs: ForwardInputs, cache: OrtCache) -> ort.IOBinding:
        """A call's inputs and outputs, as `run` takes them."""
        binding = self._session.io_binding()
        feed = dense_feed(inputs, cache.length, self._mask_type, positions=self._facts.slot_positions)
        for name, array in feed.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for name, value in zip(self._past, cache.values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name)
        return binding

    def run(self, binding: ort.IOBinding) -> None:
        """One run of the graph, and nothing else."""
        self._session.run_with_iobinding(binding)
