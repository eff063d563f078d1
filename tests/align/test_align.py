"""Aligning a draft, end to end: it gets better, is written whole, goes on where it stopped, and says what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from align_cases import CODES, FEW, write_dataset
from specbeam.align import align as module
from specbeam.align.align import AlignReport
from specbeam.align.drafts import TargetLayers
from specbeam.align.objectives import find_objective
from specbeam.align.teaching import store as teach
from specbeam.align.training.configs import ModelSize
from specbeam.align.training.samples import PromptOptions
from specbeam.align.training.sources import FreshModel, Pretrained
from specbeam.catalog.errors import OptionError, SpecBeamError
from specbeam.catalog.histories.dataset import Dataset
from specbeam.export.checkpoint import Checkpoint
from tiny_models import (
    make_text_tokenizer,
    text_catalog,
    tiny_catalog,
    tiny_checkpoint,
)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return dict(Checkpoint.open(checkpoint).load("fp32", []).named_parameters())


def same(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


class At:
    """Does something before the n-th call of a function."""

    def __init__(self, call: int, what: Callable[[], Any], function: Callable[..., Any]) -> None:
        self._left, self._what, self._function = call, what, function

    def __call__(self, *arguments: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            self._what()
        return self._function(*arguments)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_draft_is_aligned_and_written_whole(
    run: Callable[..., AlignReport], shared: Path, dataset: Dataset, tmp_path: Path
) -> None:
    report = run(budget={"steps": 60, "checks": 3, "batch": 16, "learning_rate": 1e-2})
    best = next(check for check in report.fit.checks if check["step"] == report.fit.best_step)
    assert best["acceptance"] > report.before["acceptance"] + 0.1
    assert best["accepted_levels"] > report.before["accepted_levels"]
    assert report.fit.best == best["agreement"]
    assert report.fit.last_loss < report.fit.first_loss / 2
    assert report.samples == len(dataset.train) == 40
    output = tmp_path / "aligned"
    assert sorted(path.name for path in output.iterdir()) == [
        "alignment.json", "config.json", "events", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["aligned"]
    record = json.loads((output / "alignment.json").read_text())
    assert record["objective"] == {"name": "PathKd", "alpha": 1.0, "top_k": 20, "row_weight": 1.0}
    assert record["options"]["top_k"] == 8
    assert record["budget"]["weight_decay"] == 0.01
    assert record["before"] == report.before
    checkpoint = Checkpoint.open(output)
    model = checkpoint.load("fp32", dataset.catalog.tokens)
    assert model.config.use_cache
    assert "specbeam" not in (output / "config.json").read_text()  # the attention it was trained with is ours alone
    assert sum(weight.numel() for weight in model.parameters()) == report.parameters
    assert not same(output, shared / "draft")
    for said in ("60 steps", "40 places of histories", f"{best['acceptance']:.1%}", "top 8, 40 a depth"):
        assert said in report.summary()


def test_what_was_kept_is_what_was_measured(run: Callable[..., AlignReport], tmp_path: Path) -> None:
    """Aligning what was written once more begins at the acceptance that the first run ended with."""
    first = run("first", teacher=tmp_path / "teacher", budget={**FEW, "steps": 12, "checks": 4})
    again = run("again", Pretrained(tmp_path / "first"), teacher=tmp_path / "teacher", budget={**FEW, "steps": 1})
    best = next(check for check in first.fit.checks if check["step"] == first.fit.best_step)
    assert again.before == {name: best[name] for name in again.before}


@pytest.mark.parametrize("on_policy", [0.0, 0.5])
def test_an_interrupted_alignment_ends_with_the_same_weights(
    run: Callable[..., AlignReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_policy: float
) -> None:
    monkeypatch.setattr(teach, "PART", 12)
    chosen = {"on_policy": on_policy, "budget": {**FEW, "learning_rate": 1e-2}}
    run("whole", **chosen)
    with monkeypatch.context() as patched:
        patched.setattr(teach, "truth_paths", At(3, interrupt, teach.truth_paths))
        with pytest.raises(SpecBeamError, match="Interrupted with 2 of 4 parts"):
            run("stopped", **chosen)
    assert len(list((tmp_path / "stopped.work" / "teacher").glob("part-*"))) == 2
    for call in (2, 5):  # before the first checkpoint, and after it
        with monkeypatch.context() as patched:
            patched.setattr(module, "child_logprobs", At(call, interrupt, module.child_logprobs))
            with pytest.raises(SpecBeamError, match="run the same command again"):
                run("stopped", **chosen)
    assert not (tmp_path / "stopped").exists()
    with monkeypatch.context() as patched:
        patched.setattr(teach, "truth_paths", At(1, interrupt, teach.truth_paths))  # no tree is made again
        report = run("stopped", **chosen)
    assert same(tmp_path / "stopped", tmp_path / "whole")
    assert not (tmp_path / "stopped.work").exists()
    assert report.fit.steps == FEW["steps"]


@pytest.mark.parametrize(
    ("kind", "tied", "shared_rows"), [("llama", False, True), ("llama", True, False), ("qwen3", True, True)]
)
def test_a_draft_of_the_targets_layers(
    run: Callable[..., AlignReport], tmp_path: Path, kind: str, tied: bool, shared_rows: bool
) -> None:
    target = tiny_checkpoint(tmp_path / "target", kind, codes=CODES, tied=tied, num_hidden_layers=3)
    report = run(source=TargetLayers(target, 2, shared_rows), target=target)
    before, after = weights(target), weights(tmp_path / "aligned")
    assert report.parameters == sum(weight.numel() for weight in after.values())
    assert set(after) == {name for name in before if ".layers.2." not in name}
    rows = {name for name in after if "embed_tokens" in name or "lm_head" in name}
    assert len(rows) == 1 + (not tied)
    for name, weight in after.items():
        assert torch.equal(weight, before[name]) == (shared_rows and name in rows), name
    config = Checkpoint.open(tmp_path / "aligned").config
    assert config.num_hidden_layers == 2
    assert kind != "qwen3" or len(config.layer_types) == 2
    assert report.before["acceptance"] > 0


def test_all_of_the_targets_layers_accept_everything(run: Callable[..., AlignReport], shared: Path) -> None:
    assert run(source=TargetLayers(shared / "target", 2)).before["accepted_levels"] == 2.0


def test_a_draft_of_more_layers_than_the_target_has(run: Callable[..., AlignReport], shared: Path) -> None:
    with pytest.raises(OptionError, match=r"got 3 of the target's layers; expected 1 to 2, as many as .*target has"):
        run(source=TargetLayers(shared / "target", 3))


def test_a_fresh_draft_has_the_targets_tokens(
    run: Callable[..., AlignReport], shared: Path, dataset: Dataset, tmp_path: Path
) -> None:
    source = FreshModel(ModelSize(layers=1, hidden=16, heads=2, intermediate=32), shared / "target")
    report = run(source=source, budget={**FEW, "steps": 40})
    target, draft = (Checkpoint.open(path) for path in (shared / "target", tmp_path / "aligned"))
    assert target.tokenizer.get_vocab() == draft.tokenizer.get_vocab()
    assert draft.config.vocab_size == len(target.tokenizer)
    assert draft.config.hidden_size == 16
    assert report.fit.last_loss < report.fit.first_loss


@pytest.mark.parametrize("name", ["atspeed-s", "atspeed-r", "seq-kd", "word-kd", "tvd-kd", "sft"])
def test_every_objective_is_learned(run: Callable[..., AlignReport], name: Any) -> None:
    report = run(objective=find_objective(name), budget={**FEW, "steps": 15, "learning_rate": 1e-2})
    assert report.fit.last_loss < report.fit.first_loss


def test_on_policy_in_half_precision(run: Callable[..., AlignReport]) -> None:
    """On the draft's own trees only, searched while gradients are wanted and autocast is on."""
    report = run(on_policy=1.0, budget={**FEW, "steps": 20, "learning_rate": 1e-2, "precision": "bf16"})
    assert report.fit.last_loss < report.fit.first_loss


def test_identifiers_of_several_lengths(run: Callable[..., AlignReport], tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", lambda path: tiny_catalog(path, items=120, codes=CODES, ragged=True))
    report = run(data=Dataset.open(folder), budget={**FEW, "steps": 30, "learning_rate": 1e-2}, on_policy=0.2)
    assert report.fit.last_loss < report.fit.first_loss
    assert report.fit.checks[-1]["acceptance"] > report.before["acceptance"]


def test_text_around_the_items(run: Callable[..., AlignReport]) -> None:
    words = " ".join(["user likes :"] * 7)  # longer than what is computed once for all prompts
    options = PromptOptions(prompt=words + " {history} next :", separator=" , ", history_length=3)
    report = run(prompt=options, budget={**FEW, "steps": 20, "learning_rate": 1e-2}, on_policy=0.2)
    assert report.fit.last_loss < report.fit.first_loss
    assert report.fit.checks[-1]["acceptance"] > report.before["acceptance"]


def test_identifiers_that_are_words(run: Callable[..., AlignReport], tmp_path: Path) -> None:
    data = Dataset.open(write_dataset(tmp_path / "data", text_catalog))
    tokenizer = make_text_tokenizer()
    target = tiny_checkpoint(tmp_path / "target", tokenizer=tokenizer, max_position_embeddings=512)
    report = run(source=FreshModel("1x32", target), data=data, target=target, prompt=PromptOptions(history_length=3))
    assert report.fit.last_loss < report.fit.first_loss
    tokenizers = [Checkpoint.open(path).tokenizer for path in (target, tmp_path / "aligned")]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()


def test_teacher_data_is_made_once_for_several_runs(
    run: Callable[..., AlignReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("one", teacher=tmp_path / "teacher")
    monkeypatch.setattr(teach, "truth_paths", At(1, interrupt, teach.truth_paths))
    report = run("two", teacher=tmp_path / "teacher", objective=find_objective("sft"), budget={**FEW, "seed": 3})
    assert report.teacher_bytes == sum(path.stat().st_size for path in (tmp_path / "teacher").glob("part-*"))
    run("three", teacher=tmp_path / "teacher")
    assert same(tmp_path / "one", tmp_path / "three")
    assert not same(tmp_path / "one", tmp_path / "two")
    with pytest.raises(SpecBeamError, match="holds other trees"):
        run("four", teacher=tmp_path / "teacher", top_k=4)
