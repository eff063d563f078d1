"""Alignments that are refused, and what the command says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from align_cases import CODES, FEW, write_dataset
from commands import bad, good
from commands import write as write_lines
from specbeam.align.align import AlignOptions, AlignReport
from specbeam.align.drafts import TargetLayers, find_draft
from specbeam.align.objectives import find_objective
from specbeam.align.training.samples import Format, PromptOptions
from specbeam.align.training.sources import FreshModel, Pretrained
from specbeam.catalog.errors import ExportError, HistoryError, OptionError, SpecBeamError
from specbeam.catalog.histories.dataset import Dataset
from specbeam.export.bundle import check_same_tokens
from specbeam.export.checkpoint import Checkpoint
from tiny_models import (
    identifier_tokens,
    make_tokenizer,
    tiny_catalog,
    tiny_checkpoint,
)


def test_a_draft_of_other_tokens_is_refused(run: Callable[..., AlignReport], tmp_path: Path) -> None:
    tokens = identifier_tokens(codes=CODES)
    other = tiny_checkpoint(tmp_path / "other", tokenizer=make_tokenizer([*tokens[::-1]]))
    lacking = tiny_checkpoint(tmp_path / "lacking", tokenizer=make_tokenizer(tokens[1:]))
    for source in (Pretrained(other), Pretrained(lacking)):
        with pytest.raises(ExportError, match=r"target .* draft|Target and draft"):
            run(source=source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lacking", "other"]


def test_a_loss_that_is_not_finite_leaves_no_draft(run: Callable[..., AlignReport], tmp_path: Path) -> None:
    with pytest.raises(
        SpecBeamError, match=r"Training diverged in step .* Lower the learning rate \(1e\+09\)"
    ) as caught:
        run(budget={**FEW, "learning_rate": 1e9, "warmup": 0.0})
    assert not (tmp_path / "aligned").exists()
    assert list((tmp_path / "aligned.work" / "teacher").glob("part-*"))
    work = tmp_path / "aligned.work" / "fit"
    assert f"remove {work} and start again" in str(caught.value)
    with pytest.raises(SpecBeamError, match=r"other settings \(learning_rate 1000000000.0, now"):
        run()


def test_a_draft_is_not_replaced_unasked(run: Callable[..., AlignReport], shared: Path, tmp_path: Path) -> None:
    run()
    before = (tmp_path / "aligned" / "model.safetensors").read_bytes()
    with pytest.raises(SpecBeamError, match="aligned exists already"):
        run()
    run(overwrite=True, budget={**FEW, "seed": 1})
    assert (tmp_path / "aligned" / "model.safetensors").read_bytes() != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").touch()
    with pytest.raises(SpecBeamError, match=r"mine is not replaced: it has no alignment.json"):
        run("mine", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aligned", "mine"]


def test_without_training_rows_there_is_nothing_to_do(run: Callable[..., AlignReport], tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", lambda path: tiny_catalog(path, items=300, codes=CODES))
    write_lines(folder / "train.jsonl", {"user": "u", "items": ["no such item"]})
    with pytest.raises(HistoryError, match="has no training rows"):
        run(data=Dataset.open(folder))
    write_lines(folder / "train.jsonl", {"user": "u", "items": ["3"]})
    with pytest.raises(SpecBeamError, match="two items"):
        run(data=Dataset.open(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_nothing_to_validate_on(run: Callable[..., AlignReport], tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", lambda path: tiny_catalog(path, items=300, codes=CODES), valid=0)
    assert run(data=Dataset.open(folder)).fit.checks  # the last items of some training users
    write_lines(folder / "train.jsonl", {"user": "u", "items": ["3", "4", "5"]})
    with pytest.raises(SpecBeamError, match="validat"):
        run("other", data=Dataset.open(folder))


def test_a_target_of_too_little_context(run: Callable[..., AlignReport], tmp_path: Path) -> None:
    target = tiny_checkpoint(tmp_path / "target", codes=CODES, max_position_embeddings=32)
    with pytest.raises(OptionError, match=r"20 items of history .* 64 tokens; .* context is 32"):
        run(source=FreshModel("1x32", target), target=target)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 0}, "top_k is 0, expected a whole number, at least 1"),
        ({"windows": 0}, "windows is 0"),
        ({"places": 0}, "places is 0"),
        ({"on_policy": 1.5}, "on-policy share of 1.5; expected 0 to 1"),
        ({"on_policy": float("nan")}, "on-policy share of nan"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        AlignOptions(**changes)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ((None, None, False), "got neither"),
        (("draft", 1, False), "got both"),
        (("draft", None, True), "--share-embeddings is for --from-target-layers"),
    ],
)
def test_drafts_that_cannot_be_combined_are_refused(chosen: Any, message: str) -> None:
    draft, layers, rows = chosen
    with pytest.raises(OptionError, match=message):
        find_draft(draft, Path("target"), layers, rows)


def test_drafts_are_found(shared: Path, tmp_path: Path) -> None:
    target, draft = shared / "target", shared / "draft"
    assert find_draft(str(draft), target, None, False) == Pretrained(draft)
    assert find_draft("1x32", target, None, False) == FreshModel("1x32", target)
    assert find_draft(None, target, 1, True) == TargetLayers(target, 1, True)


def test_the_command_aligns(shared: Path, dataset: Dataset, tmp_path: Path) -> None:
    common = ("align", "--target", shared / "target", "--data", shared / "data", "--teacher", tmp_path / "teacher",
              "--top-k", 6, "--steps", 3, "--checks", 1, "--batch-size", 8)  # fmt: skip
    shown = good(*common, "--draft", shared / "draft", "-o", tmp_path / "one", "--windows", 2, "--places", 30).output
    for part in ("3 steps in", "on 30 places", "top 6, 40 a depth", "validation", "Next: specbeam export", "--draft"):
        assert part in shown
    fresh = tmp_path / "fresh"
    good(*common[:5], *common[7:], "--draft", "1x32", "-o", fresh, "--objective", "atspeed-s", "--softened", 0.1)
    good(*common[:5], *common[7:], "--from-target-layers", 1, "--share-embeddings", "-o", tmp_path / "exit",
         "--objective", "atspeed-r", "--temperature", 2, "--alpha", 0.5, "--on-policy", 0.5)  # fmt: skip
    record = json.loads((tmp_path / "exit" / "alignment.json").read_text())
    assert record["objective"] == {"name": "AtSpeedR", "alpha": 0.5, "temperature": 2.0}
    assert record["options"] == {"top_k": 6, "windows": 1, "places": None, "on_policy": 0.5}
    assert json.loads((fresh / "alignment.json").read_text())["objective"]["top_k"] == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exit", "fresh", "one", "teacher"]
    target = Checkpoint.open(shared / "target")
    form = Format.compile(target.tokenizer, dataset.catalog, PromptOptions())
    for name in ("one", "fresh", "exit"):
        check_same_tokens(
            dataset.catalog, form.identifiers, target.tokenizer, Checkpoint.open(tmp_path / name).tokenizer
        )


def test_the_command_says_what_is_wrong(shared: Path, tmp_path: Path) -> None:
    target, data, output = ("--target", shared / "target"), ("--data", shared / "data"), ("-o", tmp_path / "out")
    common = ("align", *target, *data, *output)
    drafted = (*common, "--draft", shared / "draft")
    assert "got neither" in bad(*common)
    assert "got both" in bad(*drafted, "--from-target-layers", 1)
    assert "has no temperature" in bad(*drafted, "--temperature", 2)
    assert "alpha of 2" in bad(*drafted, "--alpha", 2)
    assert "on-policy share of 7" in bad(*drafted, "--on-policy", 7)
    assert "got both" in bad(*drafted, "--steps", 1, "--epochs", 1)
    assert "expected more than 0" in bad(*drafted, "--learning-rate", 0)
    assert "no index.json" in bad("align", *target, "--data", tmp_path, *output, "--draft", shared / "draft")
    assert "has no config.json" in bad("align", "--target", tmp_path, *data, *output, "--draft", "1x32")
    assert "expected one of llama-tiny" in bad(*common, "--draft", tmp_path / "nowhere")
    assert "fp16 training needs a GPU" in bad(*drafted, "--precision", "fp16") or torch.cuda.is_available()
    assert list(tmp_path.iterdir()) == []


def test_a_work_folder_that_holds_something_else_is_not_touched(
    run: Callable[..., AlignReport], tmp_path: Path
) -> None:
    mine = tmp_path / "aligned.work" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("precious")
    with pytest.raises(SpecBeamError, match=r"aligned.work holds notes.txt, which no alignment put there"):
        run()
    assert mine.read_text() == "precious"


def test_a_draft_that_got_worse_is_told_of(run: Callable[..., AlignReport], shared: Path) -> None:
    good = run("good", source=Pretrained(shared / "target"), budget={**FEW, "learning_rate": 1.0})
    assert good.summary().startswith("WARNING: it agrees less than it did.")


@pytest.mark.parametrize("name", ["sft", "seq-kd"])
def test_what_learns_from_trees_alone_is_not_taught_on_its_own(run: Callable[..., AlignReport], name: Any) -> None:
    with pytest.raises(OptionError, match="the draft would learn itself"):
        run(objective=find_objective(name), on_policy=0.5)


def test_everybody_may_read_what_is_written(run: Callable[..., AlignReport], tmp_path: Path) -> None:
    run()
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "aligned").rglob("*") if path.is_file()}
    assert len(modes) == 1
