"""Pools of texts on disk: what is written is what is found, and damage is told."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naive_pool import best_branches, paths_of
from specbeam.catalog.errors import PoolError, SpecBeamError
from specbeam.catalog.files import sha256
from specbeam.pools import TextDrafting, TextPool, propose
from specbeam.pools.files import POOL_FILE, ArrayFacts, PoolFacts, open_arrays, write_facts
from specbeam.pools.members import Members
from specbeam.pools.texts.build import build_text_pool
from specbeam.pools.texts.read import Text

DRAFTING = TextDrafting(depth=4, query=2, prompt_weight=1.0, draft_tokens=20)
GROUPS = {"u1": "b", "u2": "a", "u3": "b", "u9": "a"}
TEXTS = [Text("u1", [1, 2, 3]), Text("u2", [1, 2, 4]), Text("u4", [1, 2, 5]), Text("u3", [1, 2, 3, 3])]


def build(folder: Path, texts: list[Text] = TEXTS, groups: dict[str, str] | None = GROUPS, **more: bool) -> TextPool:
    build_text_pool(texts, folder, tokenizer_sha256="abc", reach=DRAFTING.reach, groups=groups, **more)
    return TextPool.open(folder)


@pytest.fixture
def pool(tmp_path: Path) -> TextPool:
    return build(tmp_path / "pool")


def test_a_pool_knows_its_texts_and_groups(pool: TextPool) -> None:
    assert (pool.tokenizer_sha256, pool.texts, pool.tokens, pool.groups) == ("abc", 4, 13, ("a", "b"))
    assert [pool.group_of(id) for id in ("u1", "u2", "u4", "u9", "", "\udcff")] == ["b", "a", None, "a", None, None]
    facts = pool.facts.groups
    assert [(facts[name].texts, facts[name].tokens) for name in ("a", "b")] == [(1, 3), (2, 7)]
    assert pool.facts.all.tokens == 13
    assert len(pool.checksum) == 64
    with pytest.raises(PoolError, match=r"has no group 'c'; it has: 'a', 'b'\."):
        pool.source("c")


def test_each_group_drafts_from_its_own_texts(pool: TextPool) -> None:
    contexts = [[1, 2], [1, 2], [1, 2], [7, 3]]
    got = paths_of(propose(contexts, [[pool.source(group)] for group in (None, "a", "b", "b")], DRAFTING), 4)
    assert got[0] == [((3,), 0.5), ((4,), 0.25), ((5,), 0.25), ((3, 3), 0.25)]
    assert got[1] == [((4,), 1.0)]
    assert got[2] == [((3,), 1.0), ((3, 3), 0.5)]
    assert got[3] == [((3,), 1.0)]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_pools_of_groups_equal_tries_of_their_texts(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = st.lists(st.sampled_from([0, 1, 2, 70_000]), min_size=1, max_size=20)
    texts = [Text(f"u{i}", own) for i, own in enumerate(data.draw(st.lists(text, min_size=1, max_size=8)))]
    named = data.draw(st.lists(st.sampled_from(["x", "y", "z", None]), min_size=len(texts), max_size=len(texts)))
    groups = {text.id: name for text, name in zip(texts, named, strict=True) if name is not None}
    pool = build(tmp_path_factory.mktemp("pools") / "pool", texts, groups)
    for name in (None, *pool.groups):
        own = [(text.tokens, 1.0) for text in texts if name in (None, groups.get(text.id))]
        for context in ([0, 1], [70_000], [2, 2, 0]):
            expected = best_branches(context, own, query=2, depth=4, most=20, prompt_weight=1.0)
            assert paths_of(propose([context], [[pool.source(name)]], DRAFTING), 1) == [expected]


def test_arrays_are_mapped_and_may_not_be_written_to(pool: TextPool) -> None:
    tokens = pool.source("a").tokens
    assert not tokens.flags.writeable
    assert not tokens.flags.owndata
    assert pool.source("b").tokens is tokens


def test_the_same_texts_make_the_same_pool(tmp_path: Path) -> None:
    assert build(tmp_path / "one").checksum == build(tmp_path / "two").checksum


def test_a_pool_without_groups_has_one_source(tmp_path: Path) -> None:
    pool = build(tmp_path / "pool", groups=None)
    assert pool.groups == ()
    assert pool.group_of("u1") is None
    assert len(pool.source(None).find([1, 2])) == 4
    with pytest.raises(PoolError, match="it has: no groups"):
        pool.source("a")


def test_empty_groups_and_no_texts_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"an empty group: no text belongs to 'c'\. Expected texts of every group"):
        build(tmp_path / "pool", groups=GROUPS | {"u8": "c"})
    with pytest.raises(PoolError, match=r"no text to build a pool of\. Expected at least one"):
        build(tmp_path / "pool", texts=[Text("u1", [])])
    assert list(tmp_path.iterdir()) == []


def test_a_pool_is_replaced_only_if_asked(tmp_path: Path) -> None:
    old = build(tmp_path / "pool")
    with pytest.raises(SpecBeamError, match=r"exists already\. Choose another name or pass --overwrite"):
        build(tmp_path / "pool")
    assert build(tmp_path / "pool", TEXTS[:3], None, overwrite=True).checksum != old.checksum
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(SpecBeamError, match=r"has no pool\.json, so SpecBeam did not write it"):
        build(tmp_path / "other", overwrite=True)


def flip(name: str, place: int = -1) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[place] ^= 1
        (folder / name).write_bytes(data)

    return damage


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip("order.npy"), r"order\.npy is damaged: its SHA-256 is not the one in pool\.json"),
        (flip("tokens.npy", 0), r"tokens\.npy is damaged"),
        (cut("pairs.npy"), r"pairs\.npy has \d+ bytes; pool\.json says"),
        (lambda folder: (folder / "starts.npy").unlink(), r"starts\.npy is missing; pool\.json names it"),
        (cut(POOL_FILE), r"pool\.json is damaged"),
        (flip(POOL_FILE, 60), r"pool\.json is damaged"),
        (lambda folder: (folder / POOL_FILE).write_bytes(b"\xff\x00"), r"pool\.json is damaged"),
        (lambda folder: (folder / POOL_FILE).unlink(), r"is not a pool: it has no pool\.json"),
    ],
)  # fmt: skip
def test_damage_is_told(pool: TextPool, damage: Callable[[Path], object], told: str) -> None:
    folder = pool.path
    del pool
    damage(folder)
    with pytest.raises(PoolError, match=told) as error:
        TextPool.open(folder)
    assert "specbeam build-pool" in str(error.value)


def test_another_schema_or_kind_is_told(pool: TextPool, tmp_path: Path) -> None:
    file = pool.path / POOL_FILE
    old = json.loads(file.read_text()) | {"schema_version": 99}
    file.write_text(json.dumps(old))
    with pytest.raises(PoolError, match=r"has schema version 99, of a later SpecBeam \(.*\); this one \(.*\) reads 1"):
        TextPool.open(pool.path)
    (tmp_path / "items").mkdir()
    write_facts(tmp_path / "items", PoolFacts(kind="items", arrays={}))
    with pytest.raises(PoolError, match="is a pool of kind 'items'; expected 'text'"):
        TextPool.open(tmp_path / "items")
    with pytest.raises(PoolError, match="is not a pool"):
        TextPool.open(tmp_path / "nothing")


@pytest.mark.parametrize(
    "content", [np.zeros(3), np.array([[1]], np.int32), b"\x93NUMPY\x01\x00\x10\x00{'descr': oops}", b"no array", b""]
)
def test_files_that_hold_something_else_are_told(tmp_path: Path, content: np.ndarray | bytes) -> None:
    """Even where size and hash are what pool.json says."""
    file = tmp_path / "order.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content)
    facts = ArrayFacts(dtype="<i4", shape=(3,), bytes=file.stat().st_size, sha256=sha256(file))
    with pytest.raises(PoolError, match=r"order\.npy (holds|is not an array)"):
        open_arrays(tmp_path, {"order": facts}, "specbeam build-pool")


def test_members_of_many_groups() -> None:
    groups = {f"user {i}": f"g{i % 7}" for i in range(5000)}
    names = sorted(set(groups.values()))
    members = Members.of(groups, names)
    for id, name in groups.items():
        assert names[members.group(id)] == name
    assert [members.group(f"stranger {i}") for i in range(5000)] == [None] * 5000
    assert Members.of({}, []).group("u1") is None
