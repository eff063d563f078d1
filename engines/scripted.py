"""An engine without a model: log-probabilities from a hash of what each token may see (for tests).

Every slot's value is a hash of its token, its position and the values of all slots it sees, so a
wrong mask, position, slot or cache shows up as wrong log-probabilities, as it would in a transformer.
"""

import numpy as np
from numpy.typing import NDArray

from ..catalog.hashing import UInt64, mix
from .attention_mask import MASK_TYPES, dense_mask
from .base import Engine, Float32, ForwardInputs, Int64
from .cache import KVCache
from .footprint import Footprint


class ScriptedCache(KVCache):
    """The hash values of B requests in S slots."""

    def __init__(self, batch: int) -> None:
        self.values: UInt64 = np.zeros((batch, 0), np.uint64)

    @property
    def batch(self) -> int:
        return len(self.values)

    @property
    def length(self) -> int:
        return int(self.values.shape[1])

    def copy(self) -> "ScriptedCache":
        other = ScriptedCache(self.batch)
        other.values = self.values
        return other

    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        self.values = self.values[rows] if slots is None else self.values[rows[:, None], slots]

    def join(self, other: KVCache) -> None:
        assert isinstance(other, ScriptedCache)
        values = np.zeros((self.batch + other.batch, max(self.length, other.length)), np.uint64)
        values[: self.batch, : self.length], values[self.batch :, : other.length] = self.values, other.values
        self.values = values


class ScriptedEngine(Engine):
    """Deterministic log-probabilities over C catalog tokens.

    Two engines with the same `seed` agree where `disagreement` is 0 and are unrelated where it is 1:
    a draft is made by giving it the target's seed and something between. `sharpness` scales the
    logits: the larger, the more peaked each distribution.
    """

    def __init__(
        self, columns: int, *, seed: int = 0, disagreement: float = 0.0, sharpness: float = 4.0,
        footprint: Footprint | None = None,
    ) -> None:  # fmt: skip
        super().__init__(columns=columns, footprint=footprint)
        self.seed, self.disagreement, self.sharpness = seed, disagreement, sharpness

    def new_cache(self, batch: int) -> ScriptedCache:
        return ScriptedCache(batch)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        """As `Engine.forward`; raises ValueError where a row sees a slot that comes after it."""
        assert isinstance(cache, ScriptedCache)
        past, new = cache.length, inputs.input_ids.shape[1]
        visible = dense_mask(inputs.visible_below, inputs.visible_slots, past, MASK_TYPES["fp32"])[:, 0] == 0
        if np.triu(visible[:, :, past:], 1).any():
            raise ValueError("a token sees a slot that is computed after it")
        if not visible.any(axis=2).all():
            raise ValueError("a token sees nothing")
        own = mix(mix(inputs.input_ids.astype(np.uint64)) ^ inputs.position_ids.astype(np.uint64))
        values = np.concatenate([cache.values, own], axis=1)
        for t in range(new):
            seen = np.where(visible[:, t, : past + t], values[:, : past + t], 0).sum(axis=1, dtype=np.uint64)
            values[:, past + t] = mix(values[:, past + t] ^ mix(seen))
        cache.values = values
        return self._logprobs(np.take_along_axis(values[:, past:], inputs.logit_rows, axis=1))

    def logprobs_after(self, tokens: NDArray[np.integer]) -> Float32:
        """Log-probabilities [C] after one plain sequence of tokens [n]: the definition, for references."""
        own = mix(mix(tokens.astype(np.uint64)) ^ np.arange(len(tokens), dtype=np.uint64))
        seen = value = np.zeros(1, np.uint64)
        for x in own:
            value = mix(x ^ mix(seen))
            seen = seen + value
        logprobs: Float32 = self._logprobs(value)[0]
        return logprobs

    def _logprobs(self, context: UInt64) -> Float32:
        """[...] context hashes to [..., C] log-probabilities; one more column stands for all other tokens."""
        shared = self._normal(context, self.seed)
        other = self._normal(context, self.seed + 7919)
        logits = self.sharpness * ((1 - self.disagreement) * shared + self.disagreement * other)
        logits -= logits.max(axis=-1, keepdims=True)
        logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        result: Float32 = logprobs[..., :-1].astype(np.float32)
        return result

    def _normal(self, context: UInt64, seed: int) -> NDArray[np.float64]:
        columns: UInt64 = np.arange(self.columns + 1, dtype=np.uint64)
        columns += mix(np.full(1, seed, np.uint64))
        bits = mix(context[..., None] ^ mix(columns)) >> np.uint64(11)
        uniform: NDArray[np.float64] = bits.astype(np.float64) / 2.0**53
        return (uniform - 0.5) * 12**0.5
