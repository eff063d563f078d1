"""Caches of unequal lengths that join: what each row then says is what it says in its own cache."""

import numpy as np

from specbeam.engines.base import Engine, Float32, ForwardInputs, causal
from specbeam.engines.cache import KVCache

PROMPTS = 6, 4  # tokens of the two caches' prompts


def check_join(engine: Engine, *, tolerance: float = 1e-4) -> None:
    """Join a longer cache's rows to a shorter one's, and the other way round."""
    for first, second in ((0, 1), (1, 0)):
        rng = np.random.default_rng(first)
        caches = [_read(engine, rng, batch, prompt) for batch, prompt in zip((2, 1), PROMPTS, strict=True)]
        ids = [rng.integers(3, 12, (cache.batch, 3)) for cache in caches]
        alone = [_nodes(engine, cache.copy(), ids[i], [PROMPTS[i]] * cache.batch) for i, cache in enumerate(caches)]
        one, other = caches[first], caches[second]
        before, lengths = other.copy(), [PROMPTS[first]] * one.batch + [PROMPTS[second]] * other.batch
        one.join(other)
        assert one.batch == 3
        assert one.length == max(cache.length for cache in (one, before))
        assert (other.batch, other.length) == (before.batch, before.length)
        joined = _nodes(engine, one, np.concatenate([ids[first], ids[second]]), lengths)
        np.testing.assert_allclose(joined, np.concatenate([alone[first], alone[second]]), atol=tolerance)
        left = _nodes(engine, other, ids[second], [PROMPTS[second]] * other.batch)
        np.testing.assert_allclose(left, alone[second], atol=tolerance)


def _read(engine: Engine, rng: np.random.Generator, batch: int, tokens: int) -> KVCache:
    cache = engine.new_cache(batch)
    ids, positions = rng.integers(3, 12, (batch, tokens)), np.tile(np.arange(tokens), (batch, 1))
    engine.forward(ForwardInputs(ids, positions, *causal(0, tokens, batch), np.zeros((batch, 1), np.int64)), cache)
    return cache


def _nodes(engine: Engine, cache: KVCache, ids: np.ndarray, prompts: list[int]) -> Float32:
    """Tokens that see their row's prompt and themselves."""
    batch, new = ids.shape
    below = np.repeat(np.array(prompts)[:, None], new, axis=1)
    own = np.broadcast_to(cache.length + np.arange(new), (batch, new))[:, :, None].copy()
    rows = np.tile(np.arange(new), (batch, 1))
    return engine.forward(ForwardInputs(ids, below.copy(), below, own, rows), cache).copy()
