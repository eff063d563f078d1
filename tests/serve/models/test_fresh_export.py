"""A catalog that came later serves the lists of a bundle that was exported with it, by every way to verify."""

import json
from pathlib import Path
from typing import Any

import pytest

from commands import good, same_items
from quick_builds import few_timings
from specbeam.catalog.updates import CatalogUpdate, Entry
from specbeam.runtime import Drafting, ItemFilter, Recommendation, Recommender, Verification
from specbeam.runtime.options import EngineChoice
from tiny_models import tiny_catalog, tiny_checkpoint

pytestmark = pytest.mark.services  # exports
Bundles = tuple[Path, Path, CatalogUpdate]
ITEMS, LATER = 40, 24
HISTORIES = [["30"], ["31", "32", "63"], ["20", "63", "41"], [str(i) for i in range(20, 33)]]
WAYS = [
    (Verification(scoring="full"), Drafting("none")),
    (Verification(scoring="full"), Drafting()),
    (Verification(scoring="constrained"), Drafting(speculation="fixed")),
    (Verification("sampled", seed=5, temperature=0.7), Drafting()),
]


def built(folder: Path, name: str, index: dict[str, Any]) -> Path:
    """A bundle of the pair in a folder."""
    file, bundle = folder / f"{name}.json", folder / name
    file.write_text(json.dumps(index))
    pair = ["--target", folder / "target", "--draft", folder / "draft"]
    good("export", *pair, "--catalog", file, "--history-length", 12, "--output", bundle)
    good("build-engine", bundle, "--threads", 1)
    return bundle


@pytest.fixture(scope="module", params=[False, True], ids=["of one length", "with an end token"])
def bundles(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Bundles:
    """A bundle, one of the same pair exported with a later catalog, and the change from one catalog to the other."""
    folder = tmp_path_factory.mktemp("pair")
    tiny_checkpoint(folder / "target", max_position_embeddings=32)
    tiny_checkpoint(folder / "draft", max_position_embeddings=32, num_hidden_layers=1, seed=1)
    path = tiny_catalog(folder / "all.json", items=ITEMS + LATER, ragged=request.param)
    every = list(json.loads(path.read_text()).items())
    before = dict(every[:ITEMS])
    tokens = {token for identifier in before.values() for token in identifier}
    added = {item: identifier for item, identifier in every[ITEMS:] if tokens.issuperset(identifier)}
    retired = [str(i) for i in range(0, 18)]
    after = {item: identifier for item, identifier in before.items() if item not in retired} | added
    update = CatalogUpdate(
        add=tuple(Entry(item=item, identifier=tuple(identifier)) for item, identifier in added.items()),
        retire=tuple(retired),
    )
    with few_timings():
        return built(folder, "before", before), built(folder, "after", after), update


@pytest.mark.parametrize("way", range(len(WAYS)))
def test_later_catalogs_serve_what_a_fresh_export_serves(bundles: Bundles, way: int) -> None:
    first, second, update = bundles
    verification, drafting = WAYS[way]
    before, fresh = (
        Recommender.open(bundle, engine=EngineChoice(threads=1), verification=verification, drafting=drafting)
        for bundle in (first, second)
    )
    later = before.with_catalog(update.of(before.catalog))
    assert later.catalog == fresh.catalog
    assert len(later.trie.vocabulary) >= len(fresh.trie.vocabulary)
    filters = (None, ItemFilter(deny=later.catalog.item_ids[::3]))
    for wanted in filters:
        ours, theirs = (one.recommend(HISTORIES, 30, item_filter=wanted) for one in (later, fresh))
        assert all(same_items(shown(a), shown(b)) for a, b in zip(ours, theirs, strict=True))
        assert any(a.items != b.items for a, b in zip(ours, before.recommend(HISTORIES, 30), strict=True))


def shown(recommendation: Recommendation) -> list[dict[str, Any]]:
    return [
        {"item": one.item, "title": one.title, "identifier": one.identifier, "score": one.score}
        for one in recommendation.items
    ]
