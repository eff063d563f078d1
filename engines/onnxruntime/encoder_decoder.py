"""ONNX Runtime: an encoder's graph and a decoder's, on the CPU."""

from collections.abc import Sequence

import onnxruntime as ort  # type: ignore[import-untyped]

from ..base import Engine, Float32, ForwardInputs, Int64
from ..bundle.facts import ModelFacts
from ..cache import KVCache, ReadCache
from ..reading import padded_prompts, read_first
from .bound import call_failed
from .dense import OrtCache, OrtEngine


class EncoderDecoderEngine(Engine):
    """A decoder as an `OrtEngine`, which is told with every call what an encoder has read."""

    def __init__(self, encoder: ort.InferenceSession, decoder: OrtEngine, facts: ModelFacts) -> None:
        assert facts.encoder is not None
        super().__init__(columns=decoder.columns, footprint=decoder.footprint)
        self.start = facts.encoder.start
        self._encoder, self._decoder = encoder, decoder
        self._names = [f"read_key_values.{name}" for name in facts.cache_names]

    def new_cache(self, batch: int) -> KVCache:
        raise read_first(self)

    def read(self, prompts: Sequence[Int64]) -> ReadCache:
        ids, lengths = padded_prompts(prompts)
        try:
            values = self._encoder.run_with_ort_values(self._names, _values(input_ids=ids, prompt_lengths=lengths))
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise call_failed(error, *ids.shape) from error
        return ReadCache(self._decoder.new_cache(len(ids)), OrtCache(values), lengths)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        assert isinstance(cache, ReadCache)
        assert isinstance(cache.own, OrtCache)
        assert isinstance(cache.prompts, OrtCache)
        binding = self._decoder.bound(inputs, cache.own)
        read = _values(prompt_lengths=cache.lengths) | dict(zip(self._names, cache.prompts.values, strict=True))
        for name, value in read.items():
            binding.bind_ortvalue_input(name, value)
        return self._decoder.called(binding, inputs, cache.own)


def _values(**arrays: Int64) -> dict[str, ort.OrtValue]:
    return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
