"""Training decoders on a dataset: what is learned, from what, and what is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets_made import write_dataset
from specbeam.align.training.configs import ModelSize, find_config
from specbeam.align.training.models import build_model, build_tokenizer
from specbeam.align.training.reading import AsOneSequence
from specbeam.align.training.samples import (
    IGNORED,
    Answers,
    Format,
    PackedHistories,
    PromptOptions,
    held_out_rows,
    training_samples,
)
from specbeam.align.training.sources import FreshModel
from specbeam.align.training.train import split, train
from specbeam.catalog.errors import HistoryError, OptionError, SpecBeamError
from specbeam.catalog.histories.dataset import Dataset
from specbeam.export.checkpoint import Checkpoint
from tiny_models import make_text_tokenizer, text_catalog, tiny_checkpoint
from train_cases import FEW, SIZE, logits

READING = AsOneSequence()


@pytest.fixture
def ragged(tmp_path: Path) -> Dataset:
    return Dataset.open(write_dataset(tmp_path / "ragged", ragged=True))


@pytest.fixture
def text(tmp_path: Path) -> Dataset:
    (tmp_path / "text").mkdir()
    text_catalog(tmp_path / "text" / "index.json")
    return Dataset.open(write_dataset(tmp_path / "text"))


def form_of(dataset: Dataset, **options: Any) -> Format:
    words = f"{options.get('prompt', '')}{options.get('separator', '')}".replace("{history}", " ")
    return Format.compile(build_tokenizer(dataset.catalog.tokens, words), dataset.catalog, PromptOptions(**options))


def test_a_decoder_learns_and_is_written_whole(dataset: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "model"
    report = train(dataset, FreshModel(SIZE), output, budget={**FEW, "steps": 60, "learning_rate": 1e-2})
    assert report.fit.last_loss < report.fit.first_loss - 0.5
    assert report.parameters == report.trained_parameters
    assert sorted(path.name for path in output.iterdir()) == [
        "config.json", "events", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "training.json",
    ]  # fmt: skip
    assert not (tmp_path / "model.work").exists()
    record = json.loads((output / "training.json").read_text())
    assert record["budget"]["steps"] == 60
    assert record["fit"]["best"] == report.fit.best
    checkpoint = Checkpoint.open(output)
    model = checkpoint.load("fp32", dataset.catalog.tokens)
    assert model.config.use_cache
    form = Format.compile(checkpoint.tokenizer, dataset.catalog, PromptOptions())
    with torch.no_grad():
        loss = READING.loss(model, READING.collate(held_out_rows(dataset.valid_sequences, form, packed=True)))
    assert float(loss) == pytest.approx(report.fit.best, abs=1e-5)  # what was saved is what was measured


def test_the_same_seed_trains_the_same_weights(dataset: Dataset, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        train(dataset, FreshModel(SIZE), tmp_path / name, budget={**FEW, "seed": seed})
    one, two, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "other"))
    assert one == two != other


def test_a_checkpoint_is_not_replaced_unasked(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(SpecBeamError, match="exists already"):
        train(dataset, FreshModel(SIZE), tmp_path / "model", budget=FEW)
    train(dataset, FreshModel(SIZE), tmp_path / "model", budget=FEW, overwrite=True)


def test_without_training_rows_there_is_nothing_to_do(dataset: Dataset, tmp_path: Path) -> None:
    (dataset.folder / "train.jsonl").write_text('{"user": "u", "items": ["no such item"]}\n')
    with pytest.raises(HistoryError, match="has no training rows"):
        train(Dataset.open(dataset.folder), FreshModel(SIZE), tmp_path / "model")
    (dataset.folder / "train.jsonl").write_text('{"user": "u", "items": ["3"]}\n')
    with pytest.raises(SpecBeamError, match="1 training histories none has two items"):
        train(Dataset.open(dataset.folder), FreshModel(SIZE), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_context_that_is_too_short_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    short = ModelSize(layers=1, hidden=32, heads=2, intermediate=64, context=63)
    with pytest.raises(OptionError, match=r"20 items of history and the answer are up to 64 tokens; .* context is 63"):
        train(dataset, FreshModel(short), tmp_path / "model", budget=FEW)
    assert find_config("1x32", 700).max_position_embeddings == 700


def test_without_a_validation_split_some_last_items_are_held_out(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path / "data", valid=0))
    histories, pairs, what = split(dataset, 0)
    assert what == "the last item of 2 training users, held out"
    shorter = [user for user, history in enumerate(histories) if len(history) < len(dataset.train[user])]
    assert len(shorter) == len(pairs) == 2
    for user, (history, labels) in zip(
        sorted(shorter), sorted(pairs, key=lambda p: shorter_of(p, histories)), strict=True
    ):
        assert [*history, *labels] == dataset.train[user].tolist()
    report = train(dataset, FreshModel(SIZE), tmp_path / "model", budget=FEW)
    assert report.fit.best is not None


def shorter_of(pair: Any, histories: Any) -> int:
    return next(
        user for user, history in enumerate(histories) if history is pair[0] or np.array_equal(history, pair[0])
    )


def test_packed_histories_are_windows_with_everything_a_label(dataset: Dataset) -> None:
    form = form_of(dataset, history_length=2)
    assert form.packed
    table = form.identifiers.tokens
    samples = PackedHistories([np.array([5]), np.arange(3), np.arange(9)], form, seed=0)
    assert len(samples) == 2
    seen = set()
    for epoch in range(20):
        samples.begin(epoch)
        ids, labels = samples[1]
        assert ids[0] == 1
        assert labels.tolist() == [IGNORED, *ids[1:]]
        start = next(i for i in range(9) if (table[i] == ids[1:4]).all())
        assert ids[1:].tolist() == table[start : start + 3].ravel().tolist()
        assert (samples[1][0] == ids).all()
        seen.add(start)
    assert len(seen) > 3


def test_ragged_identifiers_are_answers_with_their_end(ragged: Dataset) -> None:
    form = form_of(ragged)
    assert not form.packed
    samples = training_samples([np.array([3, 1, 2]), np.array([4])], form, 0, packed=False)
    assert isinstance(samples, Answers)
    tokens = [row[row >= 0].tolist() for row in form.identifiers.tokens]
    end = form.identifiers.end_token
    assert end == 2
    expected = [([1, *tokens[3]], [*tokens[1], end]), ([1, *tokens[3], *tokens[1]], [*tokens[2], end])]
    for (ids, labels), (prompt, answer) in zip((samples[0], samples[1]), expected, strict=True):
        assert ids.tolist() == [*prompt, *answer]
        assert labels.tolist() == [IGNORED] * len(prompt) + answer
    assert len(samples) == len(samples.lengths()) == 2


def test_a_template_is_trained_on_its_answers(dataset: Dataset) -> None:
    form = form_of(dataset, prompt="Bought: {history} Next:", separator=" , ", history_length=3)
    assert not form.packed
    ids, labels = form.answer(np.arange(5), 7)
    assert labels[-3:].tolist() == ids[-3:].tolist() == form.identifiers.tokens[7].tolist()
    assert (labels[:-3] == IGNORED).all()
    assert len(ids) == form.longest


def test_only_labels_of_held_out_users_count(dataset: Dataset) -> None:
    form = form_of(dataset, history_length=3)
    (ids, labels), (_, all_labels) = held_out_rows(
        [(np.arange(9), np.array([11])), (np.array([1]), np.arange(6))], form, packed=True
    )
    assert len(ids) == 1 + 4 * 3
    assert labels[-3:].tolist() == form.identifiers.tokens[11].tolist()
    assert (labels[:-3] == IGNORED).all()
    assert (all_labels != IGNORED).sum() == 9  # the first item of a sequence follows nothing


def test_padding_has_no_part_in_the_loss(dataset: Dataset) -> None:
    form = form_of(dataset)
    model = build_model(SIZE, build_tokenizer(dataset.catalog.tokens), context=64, seed=0).eval()
    rows = [form.sequence(np.arange(count), known=1) for count in (2, 5)]
    with torch.no_grad():
        one, other = (READING.loss(model, READING.collate([row])) for row in rows)
        torch.testing.assert_close(READING.loss(model, READING.collate(rows)), (one + 4 * other) / 5)


@pytest.mark.parametrize("name", ["ragged", "text"])
def test_identifiers_of_several_lengths_and_words_are_trained(
    name: str, request: pytest.FixtureRequest, trained: Callable[..., Any], tmp_path: Path
) -> None:
    dataset = request.getfixturevalue(name)
    base = tiny_checkpoint(tmp_path / "base", tokenizer=make_text_tokenizer()) if name == "text" else None
    source = FreshModel(SIZE, base)
    options = PromptOptions(history_length=5)
    report, model = trained(dataset, source, tmp_path / "model", prompt=options)
    assert np.isfinite(report.fit.best)
    loaded = Checkpoint.open(tmp_path / "model").load("fp32", dataset.catalog.tokens)
    assert torch.equal(logits(loaded, 20), logits(model, 20))
