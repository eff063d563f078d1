"""A tiny pair of encoder-decoders as a bundle, and what is asked of any engine over one of them."""

from pathlib import Path

import numpy as np

from quick_builds import few_timings
from specbeam.engines.base import Engine, Float32, ForwardInputs, Int64
from specbeam.engines.build import build_engine
from specbeam.engines.cache import ReadCache
from specbeam.export import export_bundle
from tiny_models import tiny_catalog, tiny_checkpoint

ITEMS = 40
PROMPTS = [np.array([5, 9, 11, 3]), np.array([7]), np.arange(4, 25)]  # the last beyond the farthest distance
LATER = [np.arange(4, 13), np.array([8, 8])]


def build_encoder_decoders(folder: Path) -> Path:
    """A T5 and a shallow mT5 that drafts for it, exported and built for the CPU."""
    target = tiny_checkpoint(folder / "target", "t5")
    draft = tiny_checkpoint(folder / "draft", "mt5", num_layers=1, num_decoder_layers=1, seed=1)
    index, bundle = tiny_catalog(folder / "index.json", items=ITEMS), folder / "bundle"
    export_bundle(target, draft, index, None, bundle, history_length=6, prompt="user likes {history} :")
    with few_timings():
        build_engine(bundle, threads=1)
    return bundle


class Talk:
    """Calls of an engine: rows that come and go, and nodes behind the start token that see their own ancestors alone.

    Two engines that are told the same say the same, wherever each of them puts its slots.
    """

    def __init__(self, engine: Engine, prompts: list[Int64] = PROMPTS) -> None:
        cache = engine.read(prompts)
        assert isinstance(cache, ReadCache)
        self.engine, self.cache = engine, cache
        self.paths = np.empty((len(prompts), 0), np.int64)  # [B, n] slots of all tokens, parents first
        self.said: list[Float32] = [self._call(np.full(len(prompts), engine.start or 0))]

    def follow(self, tokens: Int64) -> None:
        """One token more of every row."""
        self.said.append(self._call(tokens))

    def keep(self, rows: Int64, *, compact: bool) -> None:
        """Keep rows; compact: and in them what is a token, as new slots."""
        self.cache.keep(rows, self.paths[rows] if compact else None)
        self.paths = self.paths[rows]
        if compact:
            self.paths = np.tile(np.arange(self.paths.shape[1]), (len(rows), 1))

    def join(self, other: "Talk") -> None:
        """Rows that have decoded as much, behind these."""
        self.cache.join(other.cache)
        self.paths = np.concatenate([self.paths, other.paths])

    def _call(self, tokens: Int64) -> Float32:
        batch, cache = len(tokens), self.cache
        own = np.full((batch, 1), cache.length)
        self.paths = np.concatenate([self.paths, own], axis=1)
        depth = self.paths.shape[1] - 1
        ones, path = np.ones((batch, 1), np.int64), self.paths[:, None, 1:].copy()  # the start token is the prompt
        inputs = ForwardInputs(tokens[:, None], depth * ones, ones, path, 0 * ones)
        return self.engine.forward(inputs, cache)[:, 0].copy()


def talk(engine: Engine) -> list[Float32]:
    """What an engine says while requests are read, copied, left, repeated and joined by others with longer prompts."""
    one, other = Talk(engine), Talk(engine, LATER)
    one.follow(np.array([5, 6, 7]))
    other.follow(np.array([9, 10]))
    before = other.cache.copy()
    other.follow(np.array([4, 4]))
    one.keep(np.array([1, 0]), compact=True)
    one.follow(np.array([11, 12]))
    one.join(other)
    one.follow(np.array([8, 4, 9, 5]))
    one.keep(np.array([3, 3, 0]), compact=False)
    one.keep(np.arange(3), compact=False)
    other.cache, other.paths = before, other.paths[:, :2]  # as it was before the others' calls
    other.follow(np.array([6, 6]))
    return [*one.said, *other.said]


def check_talk(engine: Engine, reference: Engine, tolerance: float) -> None:
    """Two engines over one model agree."""
    assert engine.start == reference.start
    assert engine.columns == reference.columns
    for got, expected in zip(talk(engine), talk(reference), strict=True):
        np.testing.assert_allclose(got, expected, atol=tolerance)
