"""Drafting from a pool: the guesses against the naive book, and lists that are the same whatever the pool says."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import bad, good, lines, write
from naive_guesses import naive_guesses
from scripted_recommender import MODES, SHAPE, assert_same, by_the_book, make, named, pairs
from scripted_search import ragged_catalog, random_catalog
from specbeam.catalog.errors import BundleError, OptionError, PoolError
from specbeam.catalog.histories.requests import HistoryRequest
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.bundle.items import Bundle
from specbeam.evaluate.tune import described, tune
from specbeam.pools.items.build import build_item_pool
from specbeam.pools.items.pool import ItemPool
from specbeam.runtime import Drafting, DraftShape, EngineChoice, ItemFilter, Recommender, Verification
from specbeam.runtime.drafting import retrieval
from specbeam.runtime.drafting.retrieval import CatalogPool, PoolGuesses
from specbeam.runtime.planning.planner import Planner
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.planning.tuning_file import UNTUNED_POOL, tuning_file
from specbeam.runtime.search.scoring import Scoring
from specbeam.runtime.search.trie_view import TrieView
from specbeam.runtime.stats import DecodeStats
from specbeam.runtime.types import NodeList
from tiny_bundle import ENGINE, Tiny, edit_manifest

LOSSLESS = [name for name in MODES if name not in ("tolerant", "relaxed")]
HISTORIES = [[str(i), str((7 * i) % 40), str((3 * i) % 40)] for i in range(24)]


def pool_of(folder: Path, histories: Sequence[Sequence[str]], groups: dict[str, str] | None = None) -> ItemPool:
    """Of users u0, u1, ..."""
    entries = [HistoryRequest(f"u{i}", tuple(items), i + 1) for i, items in enumerate(histories)]
    file = None
    if groups is not None:
        file = folder / "groups.json"
        file.write_text(json.dumps(groups))
    build_item_pool(entries, folder / "pool", groups=file, overwrite=True)
    return ItemPool.open(folder / "pool")


def random_histories(rng: np.random.Generator, items: int, users: int) -> list[list[str]]:
    """Some of the items are in no catalog."""
    return [[f"i{n}" for n in rng.integers(0, items + 3, rng.integers(1, 25))] for _ in range(users)]


def rows_of(rng: np.random.Generator, ragged: bool) -> np.ndarray:
    return (ragged_catalog if ragged else random_catalog)(rng, int(rng.integers(2, 60)), int(rng.integers(1, 5)), 4)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.booleans())
def test_guesses_are_those_of_the_naive_book(seed: int, ragged: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rows_of(rng, ragged)
    stories = [[f"i{n}" for n in range(len(rows))][: 3 + seed % 5], *random_histories(rng, len(rows), 12)]
    history = random_histories(rng, len(rows) - 3, 1)[0] + ["i0"]
    with TemporaryDirectory() as folder:
        pool = pool_of(Path(folder), stories, {"u0": "a", "u1": "b", "u2": "b", "me": "b"})
        recommender = make(rows, pool=pool, model=False)
        requests = [recommender.encode(history), recommender.encode(history, user="me")]
        trie = recommender.trie
        catalog_pool = CatalogPool(pool, recommender.catalog, trie)
        guesses = PoolGuesses(catalog_pool, TrieView(trie), Scoring(), requests, DecodeStats(trie.length))
        inner = np.flatnonzero(trie.child_count > 0)
        asked = NodeList(np.repeat([0, 1], len(inner)), np.tile(inner, 2))
        which, child, logprob = guesses.logprobs(asked)
        expected = [naive_guesses(rows, stories, members, history) for members in ([], [1, 2])]
        for place, (request, node) in enumerate(zip(asked.request.tolist(), asked.node.tolist(), strict=True)):
            got = dict(zip(child[which == place].tolist(), np.exp(logprob[which == place]).tolist(), strict=True))
            assert got == pytest.approx(expected[request][node], rel=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(LOSSLESS), st.booleans())
def test_lists_are_the_same_whatever_the_pool_says(seed: int, ragged: bool, mode: str, model: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rows_of(rng, ragged)
    everything = [f"i{i}" for i in range(len(rows))]
    histories = [rng.choice(everything, rng.integers(1, 15)).tolist() for _ in range(4)]
    allow = frozenset(item for item in everything if rng.random() < 0.6) | {"i0"}
    wanted = ItemFilter(allow=allow) if seed % 2 else None
    k, shape = int(rng.integers(1, 12)), DraftShape(int(rng.integers(1, 12)), int(rng.integers(1, 4)))
    with TemporaryDirectory() as folder:
        pool = pool_of(Path(folder), [["i0", "i1"], *random_histories(rng, len(rows), 10)])
        drafting = make(rows, pool=pool, model=model, shape=shape, verification=MODES[mode])
        plain = make(rows, shape=None, verification=MODES[mode])
        users = [f"u{i}" for i in range(4)]
        got, expected = (
            each.recommend(histories, k, users=users, item_filter=wanted, exclude_history=seed % 3 == 0)
            for each in (drafting, plain)
        )
        for a, b in zip(got, expected, strict=True):
            assert_same(pairs(a), pairs(b))


def test_drafts_are_used_and_misses_are_mended(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = random_catalog(rng, 200, 4, 6)
    pool = pool_of(tmp_path, random_histories(rng, 200, 40))
    for model in (False, True):
        recommender = make(rows, pool=pool, model=model)
        histories = [[f"i{n}" for n in rng.integers(0, 200, 6)] for _ in range(12)]
        results = recommender.recommend(histories, 5)
        for history, result in zip(histories, results, strict=True):
            assert_same(pairs(result), by_the_book(recommender, history, 5, recommender.catalog.item_ids))
        stats = recommender.stats
        assert stats.rejections > 0
        assert stats.found[1:].sum() > 0
        assert stats.pool_seconds > 0
        assert (stats.draft_calls > 0) == model


@pytest.mark.parametrize("mode", ["tolerant", "relaxed"])
def test_modes_that_approximate_serve_full_lists(mode: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    pool = pool_of(tmp_path, random_histories(rng, 100, 20))
    recommender = make(random_catalog(rng, 100, 3, 6), pool=pool, model=False, verification=MODES[mode])
    first, again = (recommender.recommend([["i1", "i2"], ["i3"]], 8, users=["a", "b"]) for _ in range(2))
    for result, same in zip(first, again, strict=True):
        assert len({item.item for item in result.items}) == 8
        assert pairs(result) == pairs(same)


def test_a_large_catalog_has_contexts_for_its_first_tokens_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    rows = random_catalog(rng, 60, 3, 4)
    pool, catalog, trie = pool_of(tmp_path, random_histories(rng, 60, 20)), named(rows), ItemTrie.build(rows)
    widths = []
    for cells in (10**6, 60, 1):
        monkeypatch.setattr(retrieval, "CELLS", cells)
        widths.append(CatalogPool(pool, catalog, trie).evidence.shape[1])
        recommender = make(rows, pool=pool, model=False)
        assert_same(pairs(recommender.recommend([["i1"]], 5)[0]),
                    by_the_book(recommender, ["i1"], 5, recommender.catalog.item_ids))  # fmt: skip
    assert widths == [trie.level_start[3], trie.level_start[2], 1]


def test_a_pool_of_another_catalog(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, [["x1", "x2"]])
    with pytest.raises(PoolError, match=r"has no item of this catalog: it knows items such as 'x1'"):
        make(random_catalog(np.random.default_rng(0), 10, 2, 4), pool=pool)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return pool_of(tmp_path, [[str(n) for n in range(i, i + 5)] for i in range(30)]).path


def test_a_bundle_and_a_pool(bundle: Path, pool: Path) -> None:
    plain = Recommender.open(bundle, engine=EngineChoice(threads=1), drafting="none").recommend(HISTORIES, 10)
    for drafter, calls in (("retrieval", False), ("both", True), (None, True)):
        recommender = Recommender.open(
            bundle, engine=EngineChoice(threads=1), drafting=Drafting(drafter, pool=pool, shape=SHAPE)
        )  # type: ignore[arg-type]
        for a, b in zip(recommender.recommend(HISTORIES, 10), plain, strict=True):
            assert_same(pairs(a), pairs(b))
        assert (recommender.stats.draft_calls > 0) == calls
        assert recommender.stats.pool_seconds > 0
    edit_manifest(bundle, draft=None)
    recommender = Recommender.open(bundle, engine=EngineChoice(threads=1), drafting=Drafting(pool=pool, shape=SHAPE))
    for a, b in zip(recommender.recommend(HISTORIES, 10), plain, strict=True):
        assert_same(pairs(a), pairs(b))
    with pytest.raises(BundleError, match="has no draft model"):
        Recommender.open(bundle, drafting=Drafting("both", pool=pool))


def test_what_cannot_be_combined(bundle: Path, pool: Path) -> None:
    with pytest.raises(OptionError, match=r"retrieval needs a pool. Build one with: specbeam build-pool --items"):
        Recommender.open(bundle, drafting="retrieval")
    for drafter in ("model", "none"):
        with pytest.raises(OptionError, match=f"a pool is for the drafters retrieval and both; got {drafter}"):
            Recommender.open(bundle, drafting=Drafting(drafter, pool=pool))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="expected one of model, retrieval, both, none"):
        Recommender.open(bundle, drafting="oracle")  # type: ignore[arg-type]
    edit_manifest(bundle, draft=None)
    with pytest.raises(OptionError, match="has no draft model, and there is no pool"):
        Recommender.open(bundle, drafting=Drafting(shape=SHAPE))


def test_tuning_is_that_of_one_pool(bundle: Path, pool: Path, tmp_path: Path) -> None:
    untuned = Recommender.open(
        bundle, engine=EngineChoice(threads=1), drafting=Drafting("retrieval", pool=pool)
    ).planning
    assert isinstance(untuned, Planner)
    assert untuned.draft is not None
    assert untuned.draft.host_call_ms == UNTUNED_POOL.host_call_ms
    path, tuning = tune(
        bundle, HISTORIES, top_k=[5], engine=EngineChoice(threads=1), drafting=Drafting("retrieval", pool=pool)
    )
    assert path == tuning_file(Bundle.open(bundle), ENGINE, "strict", "full", "retrieval")
    assert set(tuning.fits) == {"target", "pool"}
    assert tuning.pool == ItemPool.open(pool).checksum
    assert "guesses from the pool: " in described(bundle, path, tuning)
    planning = Recommender.open(
        bundle, engine=EngineChoice(threads=1), drafting=Drafting("retrieval", pool=pool)
    ).planning
    both = Recommender.open(bundle, engine=EngineChoice(threads=1), drafting=Drafting(pool=pool)).planning
    model = Recommender.open(bundle, engine=EngineChoice(threads=1)).planning
    assert isinstance(planning, Planner)
    assert isinstance(both, Planner)
    assert isinstance(model, Planner)
    assert planning.acceptance.requests(5) >= 24
    assert both.acceptance.requests(5) == model.acceptance.requests(5) == 0
    assert planning.draft is not None
    pool_fit = tuning.fits["pool"]
    for batch in (1, 3, 20):  # 5 nodes, then 5 nodes and a prompt of 30 tokens
        nodes = pool_fit.host_call_ms + batch * 5 * (pool_fit.host_node_ms + pool_fit.scale)
        assert planning.draft.milliseconds(batch, 40, 5) == pytest.approx(nodes)
        assert planning.draft.milliseconds(batch, 0, 35, 30) == pytest.approx(nodes + batch * 30 * pool_fit.scale)
    other = pool_of(tmp_path, [["1", "2"]]).path
    stale = Recommender.open(
        bundle, engine=EngineChoice(threads=1), drafting=Drafting("retrieval", pool=other)
    ).planning
    assert isinstance(stale, Planner)
    assert stale.acceptance.requests(5) == 0


def test_speculation_by_default_is_auto(bundle: Path, pool: Path) -> None:
    def planning(**options: object) -> object:
        return Recommender.open(
            bundle, engine=EngineChoice(threads=1), drafting=Drafting(pool=pool), **options
        ).planning  # type: ignore[arg-type]

    assert isinstance(planning(), Planner)
    assert isinstance(planning(verification=Verification("relaxed")), FixedPlanning)
    torch = Recommender.open(bundle, engine=EngineChoice("torch-cpu-fp32", threads=1), drafting=Drafting(pool=pool))
    assert isinstance(torch.planning, FixedPlanning)


def test_the_verbs(bundle: Path, pool: Path, histories: Path, output: Path, tmp_path: Path) -> None:
    good("infer", bundle, histories, "-o", output, "--drafter", "none", "-k", 5)
    drafted = tmp_path / "drafted.jsonl"
    told = good("infer", bundle, histories, "-o", drafted, "--pool", pool, "--drafter", "retrieval", "--draft-width", 8,
                "-k", 5, "--stats")  # fmt: skip
    assert told.exit_code == 0
    got, expected = lines(drafted), lines(output)
    assert [[item["item"] for item in line["items"]] for line in got] == [
        [item["item"] for item in line["items"]] for line in expected
    ]
    assert all(line["stats"]["draft_calls"] == 0 for line in got)
    tuned = good("tune", bundle, histories, "--pool", pool, "--drafter", "retrieval", "-k", 3, "--threads", 1).output
    assert "tuning-strict-full-retrieval.json" in tuned
    picture = tmp_path / "tree.html"
    good("explain", bundle, "--history", "1,2,3", "-o", picture, "--pool", pool, "--drafter", "retrieval",
         "--speculation", "fixed")  # fmt: skip
    assert "drafted from the pool." in picture.read_text()
    assert "needs a pool" in bad("infer", bundle, histories, "-o", output, "--drafter", "retrieval", "--overwrite")
    assert "is not a pool" in bad("infer", bundle, histories, "-o", output, "--pool", tmp_path, "--overwrite")


def test_a_bundle_with_a_pool_is_evaluated(tiny: Tiny, bundle: Path, pool: Path, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "index.json").write_bytes(tiny.index.read_bytes())
    write(shop / "test.jsonl", *({"user": i, "items": [i, i + 1], "labels": [i + 2]} for i in range(6)))
    results = tmp_path / "results.json"
    told = good("evaluate", bundle, shop, "--pool", pool, "--drafter", "retrieval", "-k", 3, "--timed-users", 0,
                "--against", "plain", "--draft-width", 8, "--threads", 1, "-o", results).stdout  # fmt: skip
    assert "strict: 8 nodes at each of 3 depths drafted (fixed) from a pool" in told
    assert "6 of 6 strict lists" in told
    setup = json.loads(results.read_text())["setup"]
    assert (setup["drafter"], setup["pool"]) == ("retrieval", ItemPool.open(pool).checksum)
    edit_manifest(bundle, draft=None)
    good("evaluate", bundle, shop, "--pool", pool, "--verify", "relaxed", "-k", 3, "--timed-users", 0, "--threads", 1)
