"""TensorRT: a plan that reads prompts and one that decodes, on one stream."""

from collections.abc import Sequence

from ...catalog.errors import EngineError
from ..base import Engine, Float32, ForwardInputs, Int64
from ..bundle.facts import ModelFacts, Precision
from ..cache import KVCache, ReadCache
from ..memory import HeldCache, held
from ..reading import padded_prompts, read_first
from .caches import CacheLayout, Memory, TrtCaches
from .engine import Beside, Plan, TrtEngine
from .profiles import check_reading


class TrtEncoderDecoder(Engine):
    """A decoder as a `TrtEngine`; what the encoder has read of prompts stays on the GPU."""

    def __init__(
        self, encoder: Plan, decoder: TrtEngine, facts: ModelFacts, memory: Memory, *, cache_precision: Precision
    ) -> None:
        assert facts.encoder is not None
        super().__init__(columns=decoder.columns)
        self.start = facts.encoder.start
        self._encoder, self._decoder = encoder, decoder
        longest = encoder.profiles[0].range("prompt")[2]
        self._read = TrtCaches(memory, CacheLayout.of(facts, cache_precision, longest), facts.cache_names)

    def new_cache(self, batch: int) -> KVCache:
        raise read_first(self)

    def read(self, prompts: Sequence[Int64]) -> ReadCache:
        ids, lengths = padded_prompts(prompts)
        batch, longest = ids.shape
        check_reading(self._encoder.profiles[0], batch=batch, prompt=longest, rebuild=self._encoder.rebuild)
        with self._read.memory.lock:
            lease = self._read.new(batch)
            wanted = self._read.parts("read_key_values", lease, batch, longest)
            self._encoder.run(0, self._read.memory, {"input_ids": ids, "prompt_lengths": lengths}, {}, wanted)
        read = HeldCache(self._read, batch)
        read.hold(lease, batch, longest)
        return ReadCache(self._decoder.new_cache(batch), read, lengths)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        if not isinstance(cache, ReadCache):
            raise EngineError(f"This engine runs on the caches it hands out (read); got {type(cache).__name__}.")
        read = held(cache.prompts)
        assert read.memory is not None
        parts = self._read.parts("read_key_values", read.memory, read.batch, read.length)
        return self._decoder.called(inputs, held(cache.own), Beside({"prompt_lengths": cache.lengths}, parts))

    def kernels(self) -> bytes | None:
        return self._decoder.kernels()  # both plans' are in one cache
