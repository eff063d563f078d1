"""Training encoder-decoders: what they read, what they answer, and what is written."""

import json
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, T5ForConditionalGeneration

from commands import good
from datasets_made import write_dataset
from specbeam.align.training.configs import PRESETS, T5Size, find_config, named_t5
from specbeam.align.training.models import build_model, build_tokenizer
from specbeam.align.training.reading import ThroughEncoder, reading_of
from specbeam.align.training.samples import IGNORED, Answers, Format, PromptOptions, held_out_rows
from specbeam.align.training.sources import FreshModel
from specbeam.align.training.train import train
from specbeam.catalog.errors import OptionError, SpecBeamError
from specbeam.catalog.histories.dataset import Dataset
from train_cases import FEW

SIZE = T5Size(layers=1, hidden=32, heads=2, head_dim=16, intermediate=64)
READING = ThroughEncoder(start=0)


def form_of(dataset: Dataset, **options: Any) -> Format:
    return Format.compile(build_tokenizer(dataset.catalog.tokens), dataset.catalog, PromptOptions(**options))


def fresh(dataset: Dataset, seed: int = 0, size: T5Size = SIZE) -> Any:
    return build_model(size, build_tokenizer(dataset.catalog.tokens), context=64, seed=seed).eval()


def test_it_learns_and_is_written_whole(dataset: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "model"
    report = train(dataset, FreshModel(SIZE), output, budget={**FEW, "steps": 60, "learning_rate": 1e-2})
    assert report.fit.first_loss < log(3 + len(dataset.catalog.tokens)) + 2  # of equal chances, and a tied head's
    assert report.fit.last_loss < report.fit.first_loss - 0.5
    assert json.loads((output / "training.json").read_text())["fit"]["best"] == report.fit.best
    loaded = AutoModelForSeq2SeqLM.from_pretrained(output)
    assert type(loaded) is T5ForConditionalGeneration
    assert loaded.config.decoder_start_token_id == loaded.config.pad_token_id == 0
    assert loaded.generation_config.decoder_start_token_id == 0
    rows = held_out_rows(dataset.valid_sequences, form_of(dataset), packed=False)
    with torch.no_grad():
        loss = READING.loss(loaded.eval(), READING.collate(rows))
    assert float(loss) == pytest.approx(report.fit.best, abs=1e-5)  # what was saved is what was measured


def test_an_interrupted_training_goes_on_to_the_same_weights(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(name: str) -> bytes:
        train(dataset, FreshModel(SIZE), tmp_path / name, budget=FEW)
        return (tmp_path / name / "model.safetensors").read_bytes()

    whole, loss, calls = trained("whole"), ThroughEncoder.loss, iter(range(99))

    def interrupted(self: ThroughEncoder, model: Any, batch: Any) -> torch.Tensor:
        if model.training and next(calls) == 4:
            raise KeyboardInterrupt
        return loss(self, model, batch)

    monkeypatch.setattr(ThroughEncoder, "loss", interrupted)
    with pytest.raises(SpecBeamError, match="interrupted after step 4 of 6"):
        trained("parts")
    assert trained("parts") == whole  # its dropout, too


def test_each_item_is_an_answer_to_a_prompt_of_its_own(dataset: Dataset) -> None:
    form = form_of(dataset)
    assert form.packed  # to a decoder, that is
    table = form.identifiers.tokens
    samples = Answers([np.array([3, 1, 2]), np.array([4])], form)
    batch = READING.collate([samples[0], samples[1]])
    first, second, third = (table[item].tolist() for item in (3, 1, 2))
    assert batch["input_ids"].tolist() == [[1, *first, 0, 0, 0], [1, *first, *second]]
    assert batch["attention_mask"].tolist() == [[1] * 4 + [0] * 3, [1] * 7]
    assert batch["decoder_input_ids"].tolist() == [[0, *second[:-1]], [0, *third[:-1]]]
    assert batch["labels"].tolist() == [second, third]


def test_identifiers_end_with_their_token(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path / "ragged", ragged=True))
    form = form_of(dataset)
    lengths = [int((row >= 0).sum()) for row in form.identifiers.tokens]
    short, long = lengths.index(min(lengths)), lengths.index(max(lengths))
    rows = [form.answer(np.array([0]), item) for item in (short, long)]
    batch = READING.collate(rows)
    for row, item in enumerate((short, long)):
        tokens = form.identifiers.tokens[item, : lengths[item]].tolist()
        spare = max(lengths) - lengths[item]
        assert batch["labels"][row].tolist() == [*tokens, 2, *[IGNORED] * spare]
        assert batch["decoder_input_ids"][row].tolist() == [0, *tokens, *[2, *[0] * (spare - 1)][:spare]]


def test_padding_has_no_part_in_the_loss(dataset: Dataset) -> None:
    form, model = form_of(dataset), fresh(dataset)
    rows = [form.answer(np.arange(count), 9) for count in (1, 6)]
    with torch.no_grad():
        one, other = (READING.loss(model, READING.collate([row])) for row in rows)
        torch.testing.assert_close(READING.loss(model, READING.collate(rows)), (one + other) / 2)
    assert abs(one - other) > 1e-3


def test_shapes_by_name() -> None:
    for name, size in {"t5:4x128": named_t5(4, 128), "t5-tiger": PRESETS["t5-tiger"], "t5-tiny": SIZE}.items():
        config = find_config(size if name == "t5-tiny" else name, 700)
        assert (config.num_layers, config.num_decoder_layers) == (size.layers, size.layers)
        assert (config.d_model, config.d_ff, config.n_positions) == (size.hidden, size.intermediate, 700)
        assert reading_of(_begun(config)) == READING
    assert named_t5(4, 128) == T5Size(layers=4, hidden=128, heads=4, head_dim=32, intermediate=512)
    config = find_config(T5Size(layers=1, hidden=32, heads=1, head_dim=8, intermediate=64, gated=True), 5)
    assert (config.is_gated_act, config.dense_act_fn, config.n_positions) == (True, "gelu_new", 512)
    with pytest.raises(OptionError, match=r"got 4x100; expected .* a multiple of 32"):
        find_config("t5:4x100", 100)
    with pytest.raises(OptionError, match="got a dropout of 1; expected a share"):
        T5Size(layers=1, hidden=32, heads=1, head_dim=8, intermediate=64, dropout=1.0)


def _begun(config: Any) -> Any:
    config.decoder_start_token_id = 0
    return config


def test_a_tokenizer_without_padding_has_no_start(dataset: Dataset) -> None:
    tokenizer = build_tokenizer(dataset.catalog.tokens)
    tokenizer.pad_token = None
    with pytest.raises(OptionError, match="no pad token, with which the decoder of an encoder-decoder begins"):
        build_model(SIZE, tokenizer, context=64, seed=0)


def test_what_is_too_long_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    short = T5Size(layers=1, hidden=32, heads=2, head_dim=16, intermediate=64, context=63)
    with pytest.raises(OptionError, match=r"20 items of history and the answer are up to 64 tokens; .* context is 63"):
        train(dataset, FreshModel(short), tmp_path / "model", budget=FEW)


def test_the_command_trains_one(dataset: Dataset, tmp_path: Path) -> None:
    shown = good(
        "train", "--data", dataset.folder, "--config", "t5:1x32", "--steps", 3, "--checks", 1, "-o", tmp_path / "t5"
    ).output
    for part in ("parameters", "best validation loss", "3 steps in", "Next, as a target: specbeam export"):
        assert part in shown


@pytest.fixture
def trained(dataset: Dataset, tmp_path: Path) -> Callable[[str, Any], Path]:
    """Trains a source into a folder of a name."""

    def run(name: str, source: Any) -> Path:
        train(dataset, source, tmp_path / name, budget=FEW)
        return tmp_path / name

    return run
