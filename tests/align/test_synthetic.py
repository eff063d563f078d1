"""The synthetic shop has structure to learn, and a decoder learns it."""

import json
from pathlib import Path

import numpy as np
import pytest

from specbeam.align.synthetic import FAMILIES, GroupSampler, ShopSize, draw_histories, draw_shop, write_shop
from specbeam.align.synthetic_words import COLOURS, KINDS, KINDS_PER_DEPARTMENT, SIZES, STYLES, STYLES_PER_FAMILY
from specbeam.align.training.models import build_tokenizer
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.histories.read import read_histories
from specbeam.catalog.histories.requests import HistoryRequest
from specbeam.catalog.items import Catalog
from specbeam.catalog.trie import ItemTrie

SMALL = ShopSize(items=300, twins=5, train_users=400, held_out_users=40, longest=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "shop"
    write_shop(path, SMALL)
    return path


@pytest.fixture(scope="module")
def catalog(folder: Path) -> Catalog:
    return Catalog.load(folder / "index.json", folder / "items.json")


def test_the_words_fill_their_groups() -> None:
    assert len(KINDS) % KINDS_PER_DEPARTMENT == len(STYLES) % STYLES_PER_FAMILY == 0
    for words in (KINDS, STYLES, SIZES, COLOURS):
        assert len(set(words)) == len(words)


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_shop(tmp_path / "again", SMALL)
    write_shop(tmp_path / "other", ShopSize(**{**json.loads(json.dumps(as_dict(SMALL))), "seed": 1}))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "index.json", "items.json", "test.jsonl", "train.jsonl", "valid.jsonl",
    ]  # fmt: skip
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert (folder / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def as_dict(size: ShopSize) -> dict[str, object]:
    return {name: getattr(size, name) for name in size.__struct_fields__}


def test_the_catalog_is_valid_and_items_share_identifiers(catalog: Catalog) -> None:
    assert len(catalog.item_ids) == SMALL.items
    assert catalog.length == 4
    assert len(set(catalog.identifiers)) == SMALL.items - SMALL.twins
    for title, identifier in zip(catalog.titles, catalog.identifiers, strict=True):
        kind, style, size, colour = (int(token[3:-1]) for token in identifier)
        assert title is not None
        assert title.removesuffix(", new edition") == f"{STYLES[style]} {KINDS[kind]}, {SIZES[size]}, {COLOURS[colour]}"
    twins = {tokens for tokens in catalog.identifiers if catalog.identifiers.count(tokens) > 1}
    for tokens in twins:
        sharing = [t for t, i in zip(catalog.titles, catalog.identifiers, strict=True) if i == tokens]
        assert sum("new edition" in str(title) for title in sharing) == len(sharing) - 1


def test_the_trie_is_top_heavy() -> None:
    trie = ItemTrie.build(draw_shop(ShopSize()).codes + np.array([0, 100, 200, 300]))
    single = [np.mean(trie.child_count[trie.level_start[d] : trie.level_start[d + 1]] == 1) for d in range(4)]
    assert single[0] == single[1] == 0
    assert 0.4 < single[2] < single[3] < 1.0


def test_too_many_items_are_refused() -> None:
    with pytest.raises(SpecBeamError, match="expected at most"):
        draw_shop(ShopSize(items=10_000_000))


def test_the_files_are_read_without_a_reject_and_have_an_answer_each(folder: Path, catalog: Catalog) -> None:
    for split, users in (("train", SMALL.train_users), ("valid", SMALL.held_out_users), ("test", SMALL.held_out_users)):
        rows = list(read_histories([folder / f"{split}.jsonl"]))
        assert len(rows) == users
        for row in rows:
            assert isinstance(row, HistoryRequest)
            assert 3 <= len(row.items) <= SMALL.longest
            assert set(row.items) <= set(catalog.item_ids)
            assert len(row.labels) == (split != "train")


def test_the_sampler_draws_what_is_wanted() -> None:
    shop = draw_shop(ShopSize())
    sampler, rng = GroupSampler(shop.codes, shop.popularity), np.random.default_rng(0)
    kind, family = rng.integers(len(KINDS), size=5000), rng.integers(FAMILIES, size=5000)
    items = sampler.draw(rng, kind, np.eye(FAMILIES)[family])
    assert (shop.codes[items, 0] == kind).all()
    same = shop.codes[items, 1] // STYLES_PER_FAMILY == family
    groups = {(a, b // STYLES_PER_FAMILY) for a, b in shop.codes[:, :2].tolist()}
    exists = np.array([pair in groups for pair in zip(kind.tolist(), family.tolist(), strict=True)])
    assert exists.any()
    assert same[exists].mean() > 0.99  # the rest is the small taste for everything else


def test_the_next_item_follows_from_the_last() -> None:
    shop, size = draw_shop(SMALL), SMALL
    items, lengths = draw_histories(shop, size, 2000, stream=0)
    assert items.shape == (2000, size.longest + 1)
    assert lengths.max() == size.longest
    follows = (items[:, 1:, None] == shop.successors[items[:, :-1]]).any(axis=2).mean()
    shuffled = (np.roll(items, 1, axis=0)[:, 1:, None] == shop.successors[items[:, :-1]]).any(axis=2).mean()
    assert follows > size.follow > 0.4 > 10 * shuffled


def test_a_run_of_identifiers_is_one_token_each(catalog: Catalog) -> None:
    tokenizer = build_tokenizer(catalog.tokens)
    assert tokenizer.convert_tokens_to_ids(["<pad>", "<s>", "</s>"]) == [0, 1, 2]
    lookup = tokenizer.get_vocab()
    for tokens in catalog.identifiers[:20]:
        assert tokenizer("".join(tokens)).input_ids == [1, *(lookup[token] for token in tokens)]
