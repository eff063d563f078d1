"""Recommenders over scripted engines and random catalogs, and the same lists by the naive book."""

from collections.abc import Collection, Sequence

import numpy as np

from scripted_reader import ScriptedReader
from scripted_search import live_mask, naive_beam_search
from specbeam.catalog.hashing import UInt64
from specbeam.catalog.items import Catalog
from specbeam.catalog.prompts.encoder import PromptEncoder, PromptSpec
from specbeam.catalog.trie import PAD, ItemTrie
from specbeam.engines.base import Float32
from specbeam.engines.footprint import Footprint
from specbeam.engines.scripted import ScriptedEngine
from specbeam.pools.items.pool import ItemPool
from specbeam.runtime import Batching, DraftShape, Recommendation, Recommender, Verification
from specbeam.runtime.drafting.retrieval import CatalogPool
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning

PREFIX = (90,)
SHAPE = DraftShape(6, 2)
MODES = {
    "strict, full": Verification(scoring="full"),
    "strict, constrained": Verification(scoring="constrained"),
    "sampled": Verification("sampled", seed=3, temperature=0.8),
    "tolerant": Verification("tolerant", slack=0.5),
    "relaxed": Verification("relaxed", seed=3),
}
SPEC = PromptSpec(
    template="{history}", separator="", prefix_ids=PREFIX, separator_ids=(), suffix_ids=(), history_length=50
)


class SomeColumns(ScriptedEngine):
    """A scripted engine of which only some columns are seen: of a catalog that has lost items, and with them tokens."""

    def __init__(self, whole: ScriptedEngine, chosen: np.ndarray) -> None:
        super().__init__(
            whole.columns, seed=whole.seed, disagreement=whole.disagreement, sharpness=whole.sharpness,
            footprint=whole.footprint,
        )  # fmt: skip
        self._chosen = chosen

    def _logprobs(self, context: UInt64) -> Float32:
        return super()._logprobs(context)[..., self._chosen]


def named(rows: np.ndarray, ids: Sequence[str] | None = None) -> Catalog:
    """A catalog of identifiers [I, L]; item i is called "i<i>" unless said."""
    identifiers = tuple(tuple(f"<{token}>" for token in row if token != PAD) for row in rows.tolist())
    item_ids = tuple(ids) if ids is not None else tuple(f"i{i}" for i in range(len(rows)))
    return Catalog(item_ids, identifiers, (None,) * len(rows))


def make(
    rows: np.ndarray, *, seed: int = 1, shape: DraftShape | None = SHAPE, disagreement: float = 0.4,
    verification: Verification | None = None, batch_size: int = 8, max_k: int | None = None,
    kept: np.ndarray | None = None, reuse: bool = True, pool: ItemPool | None = None, model: bool = True,
    footprint: Footprint | None = None, memory: int | None = None, reads: bool = False,
) -> Recommender:  # fmt: skip
    """shape: None drafts nothing; kept [I]: make it from these items only, for the engines of all of them; pool and
    model: what drafts are guessed by; footprint: of both engines;
    reads: encoders read their prompts."""
    whole = ItemTrie.build(rows)
    kept = np.ones(len(rows), bool) if kept is None else kept
    names = [f"i{i}" for i in np.flatnonzero(kept)]
    trie = ItemTrie.build(rows[kept])
    chosen = np.searchsorted(whole.vocabulary, trie.vocabulary)
    kind = ScriptedReader if reads else ScriptedEngine
    engines = [kind(len(whole.vocabulary), seed=seed, disagreement=d, footprint=footprint) for d in (0.0, disagreement)]
    target, draft = engines if reads else [SomeColumns(engine, chosen) for engine in engines]
    catalog = named(rows[kept], names)
    loaded = Loaded(
        catalog, trie, PromptEncoder(SPEC, trie.item_tokens(), 10_000), target, draft if shape and model else None,
        None if pool is None else CatalogPool(pool, catalog, trie), max_k,
    )  # fmt: skip
    return Recommender(
        loaded, planning=FixedPlanning(shape), verification=verification, batching=Batching(batch_size, memory),
        reuse=reuse,
    )  # fmt: skip


def by_the_book(
    recommender: Recommender, history: Sequence[str], k: int, allowed: Collection[str]
) -> list[tuple[str, float]]:
    """A strict list: naive beam search over what is allowed, leaves as their allowed items in catalog order."""
    catalog, trie, target = recommender.catalog, recommender.trie, recommender._search._target.engine
    assert isinstance(target, ScriptedEngine)
    position = catalog.position
    prompt = recommender.encode(history).prompt
    places = sorted(position[item] for item in allowed)
    leaves = set(trie.leaf_of[places].tolist())
    if not leaves:
        return []
    live, width = live_mask(trie, sorted(leaves)), min(k, len(leaves))
    ranked = naive_beam_search(trie, target, prompt, width, scoring=recommender.scoring, live=live)
    pairs = [(catalog.item_ids[i], score) for leaf, score in ranked for i in places if trie.leaf_of[i] == leaf]
    return pairs[:k]


def pairs(result: Recommendation) -> list[tuple[str, float]]:
    return [(entry.item, entry.score) for entry in result.items]


def assert_same(got: Sequence[tuple[str, float]], expected: Sequence[tuple[str, float]]) -> None:
    assert [item for item, _ in got] == [item for item, _ in expected]
    np.testing.assert_allclose([score for _, score in got], [score for _, score in expected], atol=1e-4)
