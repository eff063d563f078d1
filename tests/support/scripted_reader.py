"""A scripted engine with an encoder: what it says depends on the whole prompt, and on who is behind which."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specbeam.catalog.hashing import mix
from specbeam.engines.base import Float32, ForwardInputs, Int64
from specbeam.engines.cache import KVCache, ReadCache
from specbeam.engines.reading import padded_prompts, read_first
from specbeam.engines.scripted import ScriptedCache, ScriptedEngine

START = 7
BITS = np.int64(2**40 - 1)


class ScriptedReader(ScriptedEngine):
    """What an encoder has read is a hash of each token and its position; their sum changes all that is decoded."""

    start = START

    def new_cache(self, batch: int) -> ScriptedCache:
        raise read_first(self)

    def read(self, prompts: Sequence[Int64]) -> ReadCache:
        ids, lengths = padded_prompts(prompts)
        read = ScriptedCache(len(ids))
        read.values = mix(mix(ids.astype(np.uint64)) ^ np.arange(ids.shape[1], dtype=np.uint64))  # padding's, too
        return ReadCache(ScriptedCache(len(ids)), read, lengths)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        assert isinstance(cache, ReadCache)
        assert isinstance(cache.prompts, ScriptedCache)
        there = np.arange(cache.prompts.length) < cache.lengths[:, None]
        told = np.where(there, cache.prompts.values, 0).sum(axis=1, dtype=np.uint64)
        ids = inputs.input_ids ^ (told[:, None].astype(np.int64) & BITS)
        return super().forward(replace(inputs, input_ids=ids), cache.own)

    def behind(self, prompt: Int64) -> "Behind":
        """As an engine without an encoder that is asked about one prompt: the definition, for references."""
        return Behind(self, prompt)


class Behind(ScriptedEngine):
    """What a `ScriptedReader` says of sequences that begin with its start token, for one prompt."""

    def __init__(self, of: ScriptedReader, prompt: Int64) -> None:
        super().__init__(of.columns, seed=of.seed, disagreement=of.disagreement, sharpness=of.sharpness)
        own = mix(mix(prompt.astype(np.uint64)) ^ np.arange(len(prompt), dtype=np.uint64))
        self._told = own.sum(dtype=np.uint64).astype(np.int64) & BITS

    def logprobs_after(self, tokens: NDArray[np.integer[Any]]) -> Float32:
        return super().logprobs_after(np.asarray(tokens, np.int64) ^ self._told)
