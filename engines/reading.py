"""Prompts on their way into a cache, whether an encoder reads them or they are decoded."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..catalog.errors import EngineError
from .base import Engine, Float32, ForwardInputs, Int64, causal
from .cache import KVCache


class Begun(NamedTuple):
    """Requests whose prompts are in a cache."""

    cache: KVCache
    slots: int  # of each prompt, in the decoder's cache
    logprobs: Float32  # [B, R, C] of the last tokens that were decoded


def begin(engine: Engine, prompts: Int64, rows: int = 1) -> Begun:
    """Read prompts [B, P] and decode what a search begins with; the last `rows` tokens get logits at the most."""
    if engine.start is None:
        cache, tokens = engine.new_cache(len(prompts)), prompts
    else:
        cache, tokens = engine.read([*prompts]), np.full((len(prompts), 1), engine.start)
    batch, new = tokens.shape
    below, slots = causal(0, new, batch)
    last = np.broadcast_to(np.arange(max(0, new - rows), new), (batch, min(new, rows))).copy()
    return Begun(cache, new, engine.forward(ForwardInputs(tokens, below - 1, below, slots, last), cache))


def padded_prompts(prompts: Sequence[Int64]) -> tuple[Int64, Int64]:
    """Prompts as one array [B, P], padded at their ends, and their lengths [B]."""
    lengths = np.array([len(prompt) for prompt in prompts], np.int64)
    ids = np.zeros((len(prompts), int(lengths.max())), np.int64)
    ids[np.arange(ids.shape[1]) < lengths[:, None]] = np.concatenate([*prompts])
    return ids, lengths


def read_first(engine: Engine) -> EngineError:
    """What an engine says that has an encoder, and is asked for a cache without prompts."""
    return EngineError(f"{type(engine).__name__} has an encoder: its caches begin with prompts (read).")
