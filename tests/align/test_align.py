"""Aligning a draft, end to end: it gets better, is written whole, goes on where it stopped, and says what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import bad, good
from commands import write as write_lines
from specbeam.align import align as module
from specbeam.align.align import AlignOptions, AlignReport, align
from specbeam.align.drafts import TargetLayers, find_draft
from specbeam.align.objectives import Objective, find_objective
from specbeam.align.teaching import store as teach
from specbeam.align.training.configs import ModelSize
from specbeam.align.training.samples import Format, PromptOptions
from specbeam.align.training.sources import FreshDecoder, Pretrained, Source
from specbeam.catalog.errors import ExportError, HistoryError, OptionError, SpecBeamError
from specbeam.catalog.histories.dataset import Dataset
from specbeam.export.bundle import check_same_tokens
from specbeam.export.checkpoint import Checkpoint
from tiny_models import (
    identifier_tokens,
    make_text_tokenizer,
    make_tokenizer,
    text_catalog,
    tiny_catalog,
    tiny_checkpoint,
)

CODES = 12  # enough prefixes of two tokens that 40 drafted ones are not nearly all
FEW: dict[str, Any] = {"steps": 6, "checks": 2, "batch": 8, "patience": 9}


def write_dataset(folder: Path, write: Callable[[Path], Path], *, users: int = 40, valid: int = 12) -> Path:
    """Users who walk around the catalog that `write` writes; the first of them are validated on, too.

    (What a random target ranks highest can be learned by heart, but not be guessed.)
    """
    folder.mkdir()
    count = len(json.loads(write(folder / "index.json").read_text()))
    rng = np.random.default_rng(0)
    walks = [rng.integers(count) + np.arange(rng.integers(3, 8)) for _ in range(users)]
    rows = [[str(item) for item in walk % count] for walk in walks]
    write_lines(folder / "train.jsonl", *({"user": f"u{i}", "items": row} for i, row in enumerate(rows)))
    if valid:
        held = enumerate(rows[:valid])
        write_lines(folder / "valid.jsonl", *({"user": f"u{i}", "items": r[:-1], "labels": r[-1:]} for i, r in held))
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a target and a draft that know each other; nothing in it is changed."""
    folder = tmp_path_factory.mktemp("pair")
    write_dataset(folder / "data", lambda path: tiny_catalog(path, items=300, codes=CODES))
    tiny_checkpoint(folder / "target", codes=CODES)
    tiny_checkpoint(folder / "draft", codes=CODES, seed=1, num_hidden_layers=1)
    return folder


@pytest.fixture
def dataset(shared: Path) -> Dataset:
    return Dataset.open(shared / "data")


@pytest.fixture
def run(shared: Path, dataset: Dataset, tmp_path: Path) -> Callable[..., AlignReport]:
    """Aligns the shared draft to the shared target, unless told otherwise."""

    def run(
        output: str = "aligned", source: Source | None = None, objective: Objective | None = None, *, top_k: int = 8,
        on_policy: float = 0.0, data: Dataset | None = None, target: Path | None = None, **options: Any,
    ) -> AlignReport:  # fmt: skip
        return align(
            data or dataset, target or shared / "target", source or Pretrained(shared / "draft"),
            objective or find_objective("path-kd"), tmp_path / output,
            options=AlignOptions(top_k=top_k, on_policy=on_policy), **{"budget": FEW, **options},
        )  # fmt: skip

    return run


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


# --- drafts of every kind


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
    source = FreshDecoder(ModelSize(layers=1, hidden=16, heads=2, intermediate=32), shared / "target")
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
    report = run(source=FreshDecoder("1x32", target), data=data, target=target, prompt=PromptOptions(history_length=3))
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


# --- what cannot be


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
        run(source=FreshDecoder("1x32", target), target=target)


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
    assert find_draft("1x32", target, None, False) == FreshDecoder("1x32", target)
    assert find_draft(None, target, 1, True) == TargetLayers(target, 1, True)


# --- the command


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
