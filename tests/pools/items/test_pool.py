"""Pools of items: what they hold, against counting by hand, and what is wrong with a damaged one."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import bad, good, lines, user, write
from specbeam.catalog.errors import PoolError, SpecBeamError
from specbeam.catalog.histories.requests import HistoryRequest
from specbeam.pools.files import POOL_FILE, write_arrays, write_facts
from specbeam.pools.items import build as item_build
from specbeam.pools.items.build import MOST_FOLLOWERS, WINDOW, build_item_pool
from specbeam.pools.items.pool import ItemPool

STORIES = {"u1": ["a", "b", "a", "c"], "u2": ["b", "c"], "u3": ["\ud83d", "é"], "u4": ["d"]}


def built(folder: Path, stories: Mapping[str, Sequence[str]], groups: Path | None = None) -> ItemPool:
    entries = [HistoryRequest(name, tuple(items), line) for line, (name, items) in enumerate(stories.items(), 1)]
    build_item_pool(entries, folder / "pool", groups=groups, overwrite=True)
    return ItemPool.open(folder / "pool")


def followers(pool: ItemPool) -> dict[str, dict[str, float]]:
    """What the pool says of every item."""
    which, follower, weight = pool.rows(np.arange(len(pool.ids)))
    said: dict[str, dict[str, float]] = {item: {} for item in pool.ids}
    for item, other, value in zip(which.tolist(), follower.tolist(), weight.tolist(), strict=True):
        said[pool.ids[item]][pool.ids[other]] = value
    return said


def by_hand(stories: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    seen: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for items in stories.values():
        for i, item in enumerate(items):
            _ = seen[item]
            for distance, other in enumerate(items[i + 1 : i + 1 + WINDOW], 1):
                seen[item][other] += 1 / distance
    return {item: dict(others) for item, others in seen.items()}


def test_what_a_pool_holds(tmp_path: Path) -> None:
    pool = built(tmp_path, STORIES)
    said = followers(pool)
    assert said["a"] == pytest.approx({"b": 1.0, "a": 0.5, "c": 1 + 1 / 3})  # itself included
    assert said["d"] == {}
    assert dict(zip(pool.ids, pool.counts.tolist(), strict=True))["b"] == 2
    assert (pool.facts.histories, pool.facts.interactions, pool.facts.items) == (4, 9, 6)
    assert set(pool.ids) == {item for items in STORIES.values() for item in items}  # half a surrogate pair, too
    assert pool.group_of("u1") is None


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30), min_size=1, max_size=8))
def test_counts_are_those_by_hand(stories: list[list[str]]) -> None:
    named = {f"u{i}": items for i, items in enumerate(stories)}
    with TemporaryDirectory() as folder:
        pool = built(Path(folder), named)
        said, expected = followers(pool), by_hand(named)
        assert {item: pytest.approx(row, rel=1e-6) for item, row in expected.items()} == said
        counts = Counter(item for items in stories for item in items)
        assert dict(zip(pool.ids, pool.counts.tolist(), strict=True)) == counts


def test_the_lightest_followers_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_FOLLOWERS > 2 * WINDOW
    monkeypatch.setattr(item_build, "MOST_FOLLOWERS", 2)
    assert set(followers(built(tmp_path, {"u": ["a", "b", "c", "d"]}))["a"]) == {"b", "c"}


def test_groups(tmp_path: Path) -> None:
    groups = write(tmp_path / "groups.json", {"u1": "old", "u2": "new", "u4": "new", "nobody": "old"})
    pool = built(tmp_path, STORIES, groups)
    assert pool.facts.groups == ("new", "old")
    assert [pool.group_of(name) for name in ("u1", "u2", "u3", "u4", "nobody")] == [1, 0, None, 0, 1]
    start, end = pool.group_starts[:2]
    have = {pool.ids[i]: n for i, n in zip(pool.group_items[start:end], pool.group_counts[start:end], strict=True)}
    assert have == {"b": 1, "c": 1, "d": 1}
    empty = write(tmp_path / "empty.json", {"u1": "old", "nobody": "new"})
    with pytest.raises(PoolError, match="an empty group: no history belongs to 'new'"):
        built(tmp_path, STORIES, empty)
    assert ItemPool.open(tmp_path / "pool").facts.groups == ("new", "old")  # as it was


def test_the_same_histories_make_the_same_pool(tmp_path: Path) -> None:
    assert built(tmp_path, STORIES).checksum == built(tmp_path, STORIES).checksum
    assert built(tmp_path, STORIES).checksum != built(tmp_path, {**STORIES, "u5": ["a"]}).checksum


def test_nothing_to_build(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="no history"):
        build_item_pool([], tmp_path / "pool")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    with pytest.raises(SpecBeamError, match="is not replaced"):
        build_item_pool([HistoryRequest("u", ("a",), 1)], tmp_path / "mine", overwrite=True)


def test_damage_is_found(tmp_path: Path) -> None:
    folder = built(tmp_path, STORIES).path
    path = folder / "weights.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(PoolError, match=r"weights.npy is damaged: .* specbeam build-pool --items HISTORIES"):
        ItemPool.open(folder)
    path.unlink()
    with pytest.raises(PoolError, match=r"weights.npy is missing"):
        ItemPool.open(folder)
    path.write_bytes(whole)
    facts = folder / POOL_FILE
    facts.write_text(facts.read_text().replace('"histories": 4', '"histories": 5'))
    with pytest.raises(PoolError, match="checksum"):
        ItemPool.open(folder)
    facts.unlink()
    with pytest.raises(PoolError, match="is not a pool"):
        ItemPool.open(folder)


def test_arrays_that_do_not_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays as pool.json says, and pool.json as it was written: whoever wrote it was wrong."""
    for wrong in ({"followers": np.array([7, 0, 1], np.int32)}, {"starts": np.array([0, 2, 1, 3])},
                  {"weights": np.ones(2, np.float32)}):  # fmt: skip
        right = {"starts": np.array([0, 1, 2, 3]), "followers": np.array([2, 0, 1], np.int32),
                 "weights": np.ones(3, np.float32)}  # fmt: skip
        for arrays, fails in ((right, False), (right | wrong, True)):
            monkeypatch.setattr(item_build, "_followers", lambda told, count, arrays=arrays: arrays)
            if not fails:
                built(tmp_path, {"u": ["a", "b", "c"]})
                continue
            with pytest.raises(PoolError, match="no pool of items"):
                built(tmp_path, {"u": ["a", "b", "c"]})


def test_the_verb(tmp_path: Path) -> None:
    histories = write(tmp_path / "h.jsonl", user("u1", "a", "b"), "nonsense", user(2, 7))
    output = tmp_path / "pool"
    told = good("build-pool", "--items", histories, "--output", output)
    assert "specbeam infer BUNDLE HISTORIES --pool" in told.output
    assert [line["line"] for line in lines(output.with_name("pool.rejects.jsonl"))] == [2]
    assert ItemPool.open(output).ids == ["a", "b", "7"]
    assert "exists already" in bad("build-pool", "--items", histories, "--output", output)
    texts = json.loads((output / POOL_FILE).read_text())["kind"]
    assert texts == "items"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ids", lambda array: np.frombuffer(b'["a"]', np.uint8)),
        ("ids", lambda array: np.frombuffer(b"[1", np.uint8)),
        ("weights", lambda array: np.full_like(array, np.nan)),
        ("counts", lambda array: -array),
    ],
)
def test_a_pool_whose_values_cannot_be_is_refused(tmp_path: Path, name: str, change: Callable) -> None:
    """Even where every checksum is right."""
    entries = [HistoryRequest("u", ("a", "b", "a"), 1)]
    facts = build_item_pool(entries, tmp_path / "pool")
    array = change(np.load(tmp_path / "pool" / f"{name}.npy"))
    arrays = {**facts.arrays, **write_arrays(tmp_path / "pool", {name: array})}
    write_facts(tmp_path / "pool", msgspec.structs.replace(facts, arrays=arrays))
    with pytest.raises(PoolError, match="make no pool of items"):
        ItemPool.open(tmp_path / "pool")
