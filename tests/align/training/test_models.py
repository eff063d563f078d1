"""Decoders and their sources, and the command that trains them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from commands import bad, good
from specbeam.align.training.configs import PRESETS, ModelSize, find_config, named_size
from specbeam.align.training.models import build_model, build_tokenizer, load_with_rows
from specbeam.align.training.samples import (
    Format,
    PromptOptions,
)
from specbeam.align.training.sources import LoraModel, Pretrained, find_source
from specbeam.align.training.train import train
from specbeam.catalog.errors import OptionError, PromptError
from specbeam.catalog.histories.dataset import Dataset
from specbeam.export.bundle import check_same_tokens
from specbeam.export.checkpoint import Checkpoint
from tiny_models import make_tokenizer, tiny_checkpoint
from train_cases import FEW, SIZE, logits


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
    report, model = trained(dataset, LoraModel(base, 4), tmp_path / "adapter", budget={**FEW, "learning_rate": 1e-2})
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
        train(dataset, LoraModel(tmp_path / "adapter", 4), tmp_path / "twice")


def test_configurations_by_name_file_and_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    assert named_size(4, 128) == ModelSize(layers=4, hidden=128, heads=4, intermediate=352)
    assert named_size(6, 256) == PRESETS["llama-medium"]
    for name in ("2x64", "llama-2x64", "llama-tiny"):
        config = find_config(name, 100)
        assert (config.num_hidden_layers, config.hidden_size, config.max_position_embeddings) == (2, 64, 512)
    base = tiny_checkpoint(tmp_path / "base", "qwen3")
    for path in (base, base / "config.json"):
        model = build_model(path, build_tokenizer(dataset.catalog.tokens), context=64, seed=0)
        assert type(model).__name__ == "Qwen3ForCausalLM"
        assert model.config.vocab_size == 3 + len(dataset.catalog.tokens)
    with pytest.raises(OptionError, match="got the configuration 'huge'; expected one of llama-tiny"):
        find_config("huge", 100)
    with pytest.raises(OptionError, match=r"got 4x100; expected .* a multiple of 32"):
        find_config("4x100", 100)


def test_building_a_decoder_leaves_the_global_generator_alone(dataset: Dataset) -> None:
    before = torch.get_rng_state()
    tokenizer = build_tokenizer(dataset.catalog.tokens)
    first, second = (build_model(SIZE, tokenizer, context=64, seed=3) for _ in range(2))
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
