"""Training decoders on a dataset: what is learned, from what, and what is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from commands import bad, good
from datasets_made import write_dataset
from specbeam.align.training.configs import PRESETS, ModelSize, find_config, named_size
from specbeam.align.training.decoder import build_decoder, build_tokenizer, load_with_rows
from specbeam.align.training.samples import (
    IGNORED,
    Answers,
    Format,
    PackedHistories,
    PromptOptions,
    collate,
    held_out_rows,
    next_token_loss,
    training_samples,
)
from specbeam.align.training.sources import FreshDecoder, LoraDecoder, Pretrained, Source, find_source
from specbeam.align.training.train import split, train
from specbeam.catalog.errors import HistoryError, OptionError, PromptError, SpecBeamError
from specbeam.catalog.histories.dataset import Dataset
from specbeam.export.bundle import check_same_tokens
from specbeam.export.checkpoint import Checkpoint
from tiny_models import make_text_tokenizer, make_tokenizer, text_catalog, tiny_checkpoint

SIZE = ModelSize(layers=1, hidden=32, heads=2, intermediate=64)
FEW: dict[str, Any] = {"steps": 6, "checks": 2, "batch": 8}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.open(write_dataset(tmp_path / "data"))


@pytest.fixture
def ragged(tmp_path: Path) -> Dataset:
    return Dataset.open(write_dataset(tmp_path / "ragged", ragged=True))


@pytest.fixture
def text(tmp_path: Path) -> Dataset:
    (tmp_path / "text").mkdir()
    text_catalog(tmp_path / "text" / "index.json")
    return Dataset.open(write_dataset(tmp_path / "text"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Any]]:
    """Trains, and returns the report with the model as it was when it was saved."""

    def run(dataset: Dataset, source: Source, output: Path, **options: Any) -> tuple[Any, Any]:
        kept: list[Any] = []
        save = type(source).save

        def keep(self: Source, model: Any, tokenizer: Any, part: Path) -> None:
            kept.append(model)
            save(self, model, tokenizer, part)

        monkeypatch.setattr(type(source), "save", keep)
        report = train(dataset, source, output, **{"budget": FEW, **options})
        monkeypatch.undo()
        return report, kept[0]

    return run


def logits(model: PreTrainedModel, tokens: int) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model.eval()(input_ids=torch.arange(tokens)[None]).logits
    return result


def form_of(dataset: Dataset, **options: Any) -> Format:
    words = f"{options.get('prompt', '')}{options.get('separator', '')}".replace("{history}", " ")
    return Format.compile(build_tokenizer(dataset.catalog.tokens, words), dataset.catalog, PromptOptions(**options))


def test_a_decoder_learns_and_is_written_whole(dataset: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "model"
    report = train(dataset, FreshDecoder(SIZE), output, budget={**FEW, "steps": 60, "learning_rate": 1e-2})
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
        loss = next_token_loss(model, collate(held_out_rows(dataset.valid_sequences, form)))
    assert float(loss) == pytest.approx(report.fit.best, abs=1e-5)  # what was saved is what was measured


def test_the_same_seed_trains_the_same_weights(dataset: Dataset, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        train(dataset, FreshDecoder(SIZE), tmp_path / name, budget={**FEW, "seed": seed})
    one, two, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "other"))
    assert one == two != other


def test_a_checkpoint_is_not_replaced_unasked(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(SpecBeamError, match="exists already"):
        train(dataset, FreshDecoder(SIZE), tmp_path / "model", budget=FEW)
    train(dataset, FreshDecoder(SIZE), tmp_path / "model", budget=FEW, overwrite=True)


def test_without_training_rows_there_is_nothing_to_do(dataset: Dataset, tmp_path: Path) -> None:
    (dataset.folder / "train.jsonl").write_text('{"user": "u", "items": ["no such item"]}\n')
    with pytest.raises(HistoryError, match="has no training rows"):
        train(Dataset.open(dataset.folder), FreshDecoder(SIZE), tmp_path / "model")
    (dataset.folder / "train.jsonl").write_text('{"user": "u", "items": ["3"]}\n')
    with pytest.raises(SpecBeamError, match="1 training histories none has two items"):
        train(Dataset.open(dataset.folder), FreshDecoder(SIZE), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_context_that_is_too_short_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    short = ModelSize(layers=1, hidden=32, heads=2, intermediate=64, context=63)
    with pytest.raises(OptionError, match=r"20 items of history and the answer are up to 64 tokens; .* context is 63"):
        train(dataset, FreshDecoder(short), tmp_path / "model", budget=FEW)
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
    report = train(dataset, FreshDecoder(SIZE), tmp_path / "model", budget=FEW)
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
    samples = training_samples([np.array([3, 1, 2]), np.array([4])], form, 0)
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
        [(np.arange(9), np.array([11])), (np.array([1]), np.arange(6))], form
    )
    assert len(ids) == 1 + 4 * 3
    assert labels[-3:].tolist() == form.identifiers.tokens[11].tolist()
    assert (labels[:-3] == IGNORED).all()
    assert (all_labels != IGNORED).sum() == 9  # the first item of a sequence follows nothing


def test_padding_has_no_part_in_the_loss(dataset: Dataset) -> None:
    form = form_of(dataset)
    model = build_decoder(SIZE, build_tokenizer(dataset.catalog.tokens), context=64, seed=0).eval()
    rows = [form.sequence(np.arange(count), known=1) for count in (2, 5)]
    with torch.no_grad():
        apart = (
            sum(next_token_loss(model, collate([row])) * weight for row, weight in zip(rows, (1, 4), strict=True)) / 5
        )
        torch.testing.assert_close(next_token_loss(model, collate(rows)), apart)


@pytest.mark.parametrize("name", ["ragged", "text"])
def test_identifiers_of_several_lengths_and_words_are_trained(
    name: str, request: pytest.FixtureRequest, trained: Callable[..., Any], tmp_path: Path
) -> None:
    dataset = request.getfixturevalue(name)
    base = tiny_checkpoint(tmp_path / "base", tokenizer=make_text_tokenizer()) if name == "text" else None
    source = FreshDecoder(SIZE, base)
    options = PromptOptions(history_length=5)
    report, model = trained(dataset, source, tmp_path / "model", prompt=options)
    assert np.isfinite(report.fit.best)
    loaded = Checkpoint.open(tmp_path / "model").load("fp32", dataset.catalog.tokens)
    assert torch.equal(logits(loaded, 20), logits(model, 20))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 30])
def test_a_checkpoint_gets_the_identifiers_it_lacks(
    dataset: Dataset, trained: Callable[..., Any], tmp_path: Path, tied: bool, spare: int
) -> None:
    base = tiny_checkpoint(tmp_path / "base", "qwen3", tied=tied, spare_rows=spare, tokenizer=make_tokenizer([]))
    report, model = trained(dataset, Pretrained(base), tmp_path / "model")
    checkpoint = Checkpoint.open(tmp_path / "model")
    loaded = checkpoint.load("fp32", dataset.catalog.tokens)
    assert set(dataset.catalog.tokens) <= set(checkpoint.tokenizer.get_vocab())
    assert report.trained_parameters == report.parameters == loaded.num_parameters()
    assert torch.equal(logits(loaded, len(checkpoint.tokenizer)), logits(model, len(checkpoint.tokenizer)))


def test_new_rows_have_the_spread_of_the_old(tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base", tokenizer=make_tokenizer([]), spare_rows=0)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    tokenizer.add_tokens([f"<a_{i}>" for i in range(200)])
    weight = load_with_rows(base, tokenizer, 0).get_input_embeddings().weight
    assert weight.shape[0] == len(tokenizer) == 210
    assert weight[10:].std().item() == pytest.approx(weight[:10].std().item(), rel=0.2)


@pytest.mark.parametrize(("kind", "tied", "spare"), [("llama", False, 0), ("qwen2", True, 0), ("qwen3", True, 30)])
def test_what_lora_trained_is_what_export_loads(
    dataset: Dataset, trained: Callable[..., Any], tmp_path: Path, kind: str, tied: bool, spare: int
) -> None:
    base = tiny_checkpoint(tmp_path / "base", kind, tied=tied, spare_rows=spare, tokenizer=make_tokenizer([]))
    report, model = trained(dataset, LoraDecoder(base, 4), tmp_path / "adapter", budget={**FEW, "learning_rate": 1e-2})
    assert report.trained_parameters < report.parameters / 2
    assert report.fit.last_loss < report.fit.first_loss
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "training.json"} <= names
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert told == str(base.resolve())  # found from any folder
    checkpoint = Checkpoint.open(tmp_path / "adapter")
    merged = checkpoint.load("fp32", dataset.catalog.tokens)
    count = len(checkpoint.tokenizer)
    torch.testing.assert_close(logits(merged, count), logits(model, count), atol=1e-4, rtol=1e-4)
    untrained = load_with_rows(base, checkpoint.tokenizer, 0)
    assert (logits(untrained, count) - logits(merged, count)).abs().max() > 0.1
    with pytest.raises(OptionError, match="is a LoRA adapter itself"):
        train(dataset, LoraDecoder(tmp_path / "adapter", 4), tmp_path / "twice")


def test_configurations_by_name_file_and_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    assert named_size(4, 128) == ModelSize(layers=4, hidden=128, heads=4, intermediate=352)
    assert named_size(6, 256) == PRESETS["llama-medium"]
    for name in ("2x64", "llama-2x64", "llama-tiny"):
        config = find_config(name, 100)
        assert (config.num_hidden_layers, config.hidden_size, config.max_position_embeddings) == (2, 64, 512)
    base = tiny_checkpoint(tmp_path / "base", "qwen3")
    for path in (base, base / "config.json"):
        model = build_decoder(path, build_tokenizer(dataset.catalog.tokens), context=64, seed=0)
        assert type(model).__name__ == "Qwen3ForCausalLM"
        assert model.config.vocab_size == 3 + len(dataset.catalog.tokens)
    with pytest.raises(OptionError, match="got the configuration 'huge'; expected one of llama-tiny"):
        find_config("huge", 100)
    with pytest.raises(OptionError, match=r"got 4x100; expected .* a multiple of 32"):
        find_config("4x100", 100)


def test_building_a_decoder_leaves_the_global_generator_alone(dataset: Dataset) -> None:
    before = torch.get_rng_state()
    tokenizer = build_tokenizer(dataset.catalog.tokens)
    first, second = (build_decoder(SIZE, tokenizer, context=64, seed=3) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, None, None, None), "got neither"),
        (("1x32", Path("t"), None, None), "got both"),
        (("1x32", None, 4, None), "give --from with --lora"),
        ((None, Path("t"), None, Path("d")), "leave --tokenizer out"),
    ],
)
def test_sources_that_cannot_be_combined_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        find_source(*arguments)


def test_the_command_trains_a_pair_of_one_vocabulary(dataset: Dataset, tmp_path: Path) -> None:
    prompt = ("--prompt", "Bought: {history} Next:", "--separator", " , ", "--history-length", 4)
    common = ("--data", dataset.folder, "--steps", 3, "--checks", 1, "--batch-size", 4, *prompt)
    target, draft = tmp_path / "target", tmp_path / "draft"
    shown = good("train", *common, "--config", "2x32", "--output", target).output
    for part in (
        "parameters",
        "best validation loss",
        "3 steps in",
        "tensorboard --logdir",
        "Next, as a target: specbeam export",
    ):
        assert part in shown
    good("train", *common, "--config", "1x32", "--tokenizer", target, "-o", draft)
    pair = [Checkpoint.open(path) for path in (target, draft)]
    assert [checkpoint.config.num_hidden_layers for checkpoint in pair] == [2, 1]
    options = PromptOptions(prompt=prompt[1], separator=prompt[3], history_length=4)
    one, other = (Format.compile(checkpoint.tokenizer, dataset.catalog, options) for checkpoint in pair)
    assert one.spec == other.spec  # as export compiles it
    check_same_tokens(dataset.catalog, one.identifiers, *(checkpoint.tokenizer for checkpoint in pair))


def test_the_command_says_what_is_wrong(dataset: Dataset, tmp_path: Path) -> None:
    output = ("--output", tmp_path / "model")
    assert "got neither" in bad("train", "--data", dataset.folder, *output)
    assert "no index.json" in bad("train", "--data", tmp_path, "--config", "1x32", *output)
    assert "expected more than 0" in bad(
        "train", "--data", dataset.folder, "--config", "1x32", "--learning-rate", -1, *output
    )
    assert "got both" in bad(
        "train", "--data", dataset.folder, "--config", "1x32", "--steps", 1, "--epochs", 1, *output
    )
    assert "has no config.json" in bad("train", "--data", dataset.folder, "--from", tmp_path, *output)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_words_that_a_tokenizer_lacks_are_named(dataset: Dataset) -> None:
    tokenizer = build_tokenizer(dataset.catalog.tokens)
    with pytest.raises(PromptError, match=r"cannot take the prompt 'buy \{history\} next'"):
        Format.compile(tokenizer, dataset.catalog, PromptOptions(prompt="buy {history} next"))
