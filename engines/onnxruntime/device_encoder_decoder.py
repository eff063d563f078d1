"""ONNX Runtime: an encoder and a decoder with everything on the device."""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from ...catalog.errors import EngineError
from ..base import Engine, Float32, ForwardInputs, Int64
from ..bundle.facts import ModelFacts
from ..cache import KVCache, ReadCache
from ..memory import HeldCache, held
from ..reading import padded_prompts, read_first
from .bound import DEVICE, BoundSession, call_failed
from .buckets import bucket
from .device import DeviceEngine

READ = "read_key_values"  # what the names of tensors begin with that an encoder makes


class DeviceEncoderDecoder(Engine):
    """A decoder as a `DeviceEngine`; what the encoder has read of prompts stays on the device.

    Prompts, too, are padded to sizes that come again.
    """

    def __init__(
        self, encoder: ort.InferenceSession, decoder: DeviceEngine, facts: ModelFacts, device: str,
        *, cuda_graphs: bool = False,
    ) -> None:  # fmt: skip
        assert facts.encoder is not None
        super().__init__(columns=decoder.columns)
        self.start = facts.encoder.start
        self._encoder, self._decoder = BoundSession(encoder, device, cuda_graphs=cuda_graphs), decoder

    def new_cache(self, batch: int) -> KVCache:
        raise read_first(self)

    def read(self, prompts: Sequence[Int64]) -> ReadCache:
        ids, lengths = padded_prompts(prompts)
        (batch, longest), width = ids.shape, bucket(ids.shape[1])
        small = {"input_ids": np.pad(ids, ((0, 0), (0, width - longest))), "prompt_lengths": lengths}
        with DEVICE:
            memory = self._decoder.caches.new(batch, width)
            try:
                wanted = self._decoder.caches.tensors(READ, memory, batch, width)
                self._encoder.run(self._decoder.transfers.upload(small), (wanted,))
            except Exception as error:  # ONNX Runtime's exceptions share no base of their own
                raise call_failed(error, batch, longest) from error
        read = HeldCache(self._decoder.caches, batch)
        read.hold(memory, batch, width)
        return ReadCache(self._decoder.new_cache(batch), read, lengths)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        if not isinstance(cache, ReadCache):
            raise EngineError(f"This engine runs on the caches it hands out (read); got {type(cache).__name__}.")
        read = held(cache.prompts)
        assert read.memory is not None
        tensors = self._decoder.caches.tensors(READ, read.memory, read.batch, read.length)
        return self._decoder.called(inputs, held(cache.own), {"prompt_lengths": cache.lengths}, (tensors,))
