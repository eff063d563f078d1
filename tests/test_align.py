"""The synthetic shop has structure to learn, and a decoder learns it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from specrec.align.decoder import PAD, ModelSize, build_decoder, build_tokenizer
from specrec.align.synthetic import FAMILIES, GroupSampler, ShopSize, draw_histories, draw_shop, write_shop
from specrec.align.train import BestWeights, Sequences, TrainingBudget, next_token_loss, schedule, train_decoder
from specrec.align.words import COLOURS, KINDS, KINDS_PER_DEPARTMENT, SIZES, STYLES, STYLES_PER_FAMILY
from specrec.catalog.errors import SpecRecError
from specrec.catalog.history import HistoryRequest, read_histories
from specrec.catalog.items import Catalog
from specrec.catalog.trie import ItemTrie

SMALL = ShopSize(items=300, twins=5, train_users=400, held_out_users=40, longest=12)
TINY = ModelSize(layers=1, hidden=32, heads=2, intermediate=64, context=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "shop"
    write_shop(path, SMALL)
    return path


@pytest.fixture(scope="module")
def catalog(folder: Path) -> Catalog:
    return Catalog.load(folder / "index.json", folder / "items.json")


@pytest.fixture(scope="module")
def histories(folder: Path, catalog: Catalog) -> Callable[[str], list[list[int]]]:
    def read(split: str) -> list[list[int]]:
        rows = list(read_histories([folder / f"{split}.jsonl"]))
        return [[catalog.position[item] for item in row.items] for row in rows if isinstance(row, HistoryRequest)]

    return read


def test_the_words_fill_their_groups() -> None:
    assert len(KINDS) % KINDS_PER_DEPARTMENT == len(STYLES) % STYLES_PER_FAMILY == 0
    for words in (KINDS, STYLES, SIZES, COLOURS):
        assert len(set(words)) == len(words)


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_shop(tmp_path / "again", SMALL)
    write_shop(tmp_path / "other", ShopSize(**{**json.loads(json.dumps(as_dict(SMALL))), "seed": 1}))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "index.json", "items.json", "test.jsonl", "test_next.jsonl", "train.jsonl", "valid.jsonl", "valid_next.jsonl",
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
    with pytest.raises(SpecRecError, match="expected at most"):
        draw_shop(ShopSize(items=10_000_000))


def test_the_files_are_read_without_a_reject_and_have_an_answer_each(folder: Path, catalog: Catalog) -> None:
    for split, users in (("train", SMALL.train_users), ("valid", SMALL.held_out_users), ("test", SMALL.held_out_users)):
        rows = list(read_histories([folder / f"{split}.jsonl"]))
        assert len(rows) == users
        for row in rows:
            assert isinstance(row, HistoryRequest)
            assert 3 <= len(row.items) <= SMALL.longest
            assert set(row.items) <= set(catalog.item_ids)
    answers = [row for row in read_histories([folder / "test_next.jsonl"]) if isinstance(row, HistoryRequest)]
    tests = [row for row in read_histories([folder / "test.jsonl"]) if isinstance(row, HistoryRequest)]
    assert [row.user for row in answers] == [row.user for row in tests]
    assert {len(row.items) for row in answers} == {1}


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


def test_batches_hold_every_history_once_in_windows() -> None:
    table = np.arange(20).reshape(10, 2) + 3
    rows = [[0], [1, 2, 3], [4, 5, 6, 7, 8, 9], [2, 2]]
    sequences = Sequences(rows, table, 4)
    seen = [row for batch in sequences.batches(3, np.random.default_rng(0)) for row in batch.tolist()]
    assert len(seen) == len(rows)
    assert all(row[0] == 1 for row in seen)
    cores = sorted([token for token in row[1:] if token != PAD] for row in seen)
    windows = [[token for item in rows[2][start : start + 4] for token in table[item].tolist()] for start in range(3)]
    whole = [[token for item in row for token in table[item].tolist()] for row in (rows[0], rows[1], rows[3])]
    assert any(cores == sorted([*whole, window]) for window in windows)


def test_padding_has_no_part_in_the_loss() -> None:
    model = build_decoder(TINY, 20, seed=0).eval()
    short, long = torch.tensor([[1, 5, 6]]), torch.tensor([[1, 7, 8, 9, 10]])
    padded = torch.tensor([[1, 5, 6, PAD, PAD], [1, 7, 8, 9, 10]])
    with torch.no_grad():
        apart = (2 * next_token_loss(model, short) + 4 * next_token_loss(model, long)) / 6
        torch.testing.assert_close(next_token_loss(model, padded), apart)


def test_building_a_decoder_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second = build_decoder(TINY, 20, seed=3), build_decoder(TINY, 20, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_learning_rate_rises_and_falls() -> None:
    factors = [schedule(done, 0.1) for done in np.linspace(0, 1, 101).tolist()]
    assert int(np.argmax(factors)) == 10
    assert factors[10] == pytest.approx(1.0)
    assert factors[100] == pytest.approx(0.0)
    assert min(factors[:100]) > 0


def test_the_best_weights_come_back() -> None:
    model = build_decoder(TINY, 20, seed=0)
    watch, kept = BestWeights(model, patience=2), model.model.norm.weight
    verdicts = []
    for value, loss in ((1.0, 3.0), (2.0, 2.0), (3.0, 2.5), (4.0, 2.1)):
        with torch.no_grad():
            kept.fill_(value)
        verdicts.append(watch.hopeless(loss))
    assert verdicts == [False, False, False, True]
    watch.restore()
    assert watch.best == 2.0
    assert kept.unique().tolist() == [2.0]


def test_training_lowers_the_loss_and_writes_a_checkpoint(
    catalog: Catalog, histories: Callable[[str], list[list[int]]], tmp_path: Path
) -> None:
    budget = TrainingBudget(steps=40, batch=16, learning_rate=1e-2)
    train, valid = histories("train"), histories("valid")
    output = tmp_path / "model"
    report = train_decoder(train, catalog, TINY, output, budget=budget, validation=valid, history_length=10)
    assert report.steps == 40
    assert report.last_loss < report.first_loss - 0.5
    assert report.validation_loss is not None
    assert report.validation_loss < report.first_loss - 0.5

    model = AutoModelForCausalLM.from_pretrained(output)
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert model.num_parameters() == report.parameters
    table = catalog.token_ids(tokenizer.get_vocab())
    batches = Sequences(valid, table, 11).batches(40, np.random.default_rng(0))
    loss = np.mean([next_token_loss(model, rows).item() for rows in batches])
    assert loss == pytest.approx(report.validation_loss, abs=0.05)  # what was saved is what was measured


def test_the_same_seed_trains_the_same_weights(
    catalog: Catalog, histories: Callable[[str], list[list[int]]], tmp_path: Path
) -> None:
    budget = TrainingBudget(steps=4, batch=4)
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        train_decoder(histories("train"), catalog, TINY, tmp_path / name, budget=budget, history_length=10, seed=seed)
    one, two, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "other"))
    assert one == two != other


def test_training_stops_in_time(catalog: Catalog, histories: Callable[[str], list[list[int]]], tmp_path: Path) -> None:
    budget = TrainingBudget(steps=1_000_000, seconds=0.5)
    report = train_decoder(histories("train"), catalog, TINY, tmp_path / "model", budget=budget, history_length=10)
    assert 0 < report.steps < 1_000_000
    assert report.validation_loss is None


@pytest.mark.parametrize(
    ("rows", "length", "message"),
    [([], 10, "got 0"), ([[1], []], 10, "empty: 1"), ([[1]], 20, "the context is 64")],
)
def test_what_cannot_be_trained_on_is_refused(
    catalog: Catalog, tmp_path: Path, rows: list[list[int]], length: int, message: str
) -> None:
    with pytest.raises(SpecRecError, match=message):
        train_decoder(rows, catalog, TINY, tmp_path / "model", budget=TrainingBudget(steps=1), history_length=length)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_not_replaced_unasked(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(SpecRecError, match="exists already"):
        train_decoder([[1, 2]], catalog, TINY, tmp_path / "model", budget=TrainingBudget(steps=1), history_length=5)


def test_identifiers_of_several_lengths_are_refused(tmp_path: Path) -> None:
    ragged = Catalog(("1", "2"), (("<a_1>",), ("<a_2>", "<b_1>")), (None, None))
    size = ModelSize(layers=1, hidden=8, heads=1, intermediate=8)
    with pytest.raises(SpecRecError, match="one length only"):
        train_decoder([[0, 1]], ragged, size, tmp_path / "m", budget=TrainingBudget(steps=1))
