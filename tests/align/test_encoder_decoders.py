"""Pairs with an encoder-decoder in them, aligned end to end."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from align_cases import CODES, FEW, write_dataset
from commands import good
from specbeam.align.align import AlignReport
from specbeam.align.drafts import TargetLayers
from specbeam.align.training.configs import T5Size
from specbeam.align.training.sources import FreshModel, LoraModel, Pretrained
from specbeam.align.training.train import train
from specbeam.catalog.errors import OptionError
from specbeam.catalog.histories.dataset import Dataset
from specbeam.export.checkpoint import Checkpoint
from tiny_models import make_tokenizer, tiny_catalog, tiny_checkpoint


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target and a draft of either kind, all of the same tokens."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("t5", "mt5", "llama"):
        tiny_checkpoint(folder / f"{kind}-target", kind, codes=CODES)
    tiny_checkpoint(folder / "t5-draft", "t5", codes=CODES, seed=1, num_layers=1, num_decoder_layers=1)
    tiny_checkpoint(folder / "llama-draft", codes=CODES, seed=1, num_hidden_layers=1)
    return folder


@pytest.mark.parametrize(("target", "draft"), [("t5", "t5"), ("t5", "llama"), ("llama", "t5"), ("mt5", "t5")])
def test_more_is_accepted_whoever_reads_through_an_encoder(
    run: Callable[..., AlignReport], models: Path, tmp_path: Path, target: str, draft: str
) -> None:
    report = run(
        source=Pretrained(models / f"{draft}-draft"), target=models / f"{target}-target",
        budget={"steps": 60, "checks": 3, "batch": 16, "learning_rate": 1e-2},
    )  # fmt: skip
    best = next(check for check in report.fit.checks if check["step"] == report.fit.best_step)
    assert best["acceptance"] > report.before["acceptance"] + 0.1
    assert best["accepted_levels"] >= report.before["accepted_levels"]
    assert report.fit.last_loss < report.fit.first_loss / 2
    written = Checkpoint.open(tmp_path / "aligned").load("fp32", [])
    assert sum(weight.numel() for weight in written.parameters()) == report.parameters
    assert "specbeam" not in (tmp_path / "aligned" / "config.json").read_text()


def test_what_was_kept_is_what_was_measured(run: Callable[..., AlignReport], models: Path, tmp_path: Path) -> None:
    shared = {"target": models / "t5-target", "teacher": tmp_path / "teacher"}
    first = run("first", Pretrained(models / "t5-draft"), **shared, budget={**FEW, "steps": 12, "checks": 4})
    again = run("again", Pretrained(tmp_path / "first"), **shared, budget={**FEW, "steps": 1})
    best = next(check for check in first.fit.checks if check["step"] == first.fit.best_step)
    assert again.before == {name: best[name] for name in again.before}


def test_its_own_trees_and_identifiers_of_several_lengths_in_half_precision(
    run: Callable[..., AlignReport], models: Path, tmp_path: Path
) -> None:
    folder = write_dataset(tmp_path / "data", lambda path: tiny_catalog(path, items=120, codes=CODES, ragged=True))
    report = run(
        source=Pretrained(models / "t5-draft"), target=models / "t5-target", data=Dataset.open(folder), on_policy=0.5,
        budget={**FEW, "steps": 20, "learning_rate": 1e-2, "precision": "bf16"},
    )  # fmt: skip
    assert report.fit.last_loss < report.fit.first_loss
    assert report.fit.checks[-1]["acceptance"] > report.before["acceptance"]


def test_a_draft_of_the_targets_layers(run: Callable[..., AlignReport], models: Path, tmp_path: Path) -> None:
    target = tiny_checkpoint(tmp_path / "target", "t5", codes=CODES, num_layers=2)
    whole = run("whole", source=TargetLayers(target, 2), target=target)
    assert whole.before["accepted_levels"] == 2.0  # it is the target
    run(source=TargetLayers(target, 1, shared=True), target=target)
    config = Checkpoint.open(tmp_path / "aligned").config
    assert (config.num_layers, config.num_decoder_layers) == (1, 1)
    before, after = (Checkpoint.open(path).load("fp32", []).shared.weight for path in (target, tmp_path / "aligned"))
    assert torch.equal(before, after)
    with pytest.raises(OptionError, match=r"got 3 of the target's layers; expected 1 to 2"):
        run("more", source=TargetLayers(models / "t5-target", 3), target=models / "t5-target")


def test_a_fresh_draft_begins_as_its_tokenizer_pads(run: Callable[..., AlignReport], models: Path) -> None:
    size = T5Size(layers=1, hidden=16, heads=2, head_dim=8, intermediate=32)
    report = run(source=FreshModel(size, models / "llama-target"), target=models / "llama-target", budget=FEW)
    assert report.fit.last_loss < report.fit.first_loss


def test_the_command_aligns_a_fresh_one(shared: Path, models: Path, tmp_path: Path) -> None:
    shown = good(
        "align", "--target", models / "t5-target", "--data", shared / "data", "--top-k", 6, "--steps", 3, "--checks", 1,
        "--batch-size", 8, "--draft", "t5:1x32", "-o", tmp_path / "draft",
    ).output  # fmt: skip
    assert "3 steps in" in shown
    assert Checkpoint.open(tmp_path / "draft").config.model_type == "t5"


def test_a_checkpoint_is_trained_further_as_a_whole(dataset: Dataset, tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base", "t5", tokenizer=make_tokenizer([]))
    report = train(dataset, Pretrained(base), tmp_path / "model", budget={**FEW, "steps": 20, "learning_rate": 1e-2})
    assert report.fit.last_loss < report.fit.first_loss
    checkpoint = Checkpoint.open(tmp_path / "model")
    assert set(dataset.catalog.tokens) <= set(checkpoint.tokenizer.get_vocab())
    assert report.parameters == checkpoint.load("fp32", dataset.catalog.tokens).num_parameters()
    with pytest.raises(OptionError, match="is an encoder-decoder; LoRA is for decoders"):
        train(dataset, LoraModel(base, 4), tmp_path / "adapter", budget=FEW)
