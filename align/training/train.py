"""`specbeam train`: a model learns which item comes next."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ... import __version__
from ...catalog import checks
from ...catalog.files import check_replaceable
from ...catalog.histories.dataset import Dataset
from ...catalog.identifiers import Warn
from ...catalog.prompts.options import PromptOptions
from ...engines.decoder_facts import context_of
from ...export.quiet import quiet
from ...export.trained import TRAINING, Given, Trained, as_trained
from .budget import TrainingBudget, chosen_settings
from .fit import FitReport, fit
from .models import check_context, hidden_width
from .order import Int64
from .reading import reading_of
from .samples import Format, held_out_rows, training_samples
from .sources import Source
from .work import EVENTS

HELD_OUT = 0.05  # share of users whose last item is held out where a dataset has no validation split
MOST_VALIDATION = 2000  # users, or answers, that the validation loss is measured on

Pairs = list[tuple[Int64, Int64]]


@dataclass(frozen=True)
class TrainReport:
    """What came of a training; losses are nats a token."""

    parameters: int
    trained_parameters: int
    validated_on: str
    prompt: PromptOptions
    budget: TrainingBudget
    fit: FitReport
    events: Path | None  # TensorBoard's

    def summary(self) -> str:
        """What to tell of it, in a few lines."""
        fit = self.fit
        lines = [f"{self.parameters:,} parameters, {self.trained_parameters:,} of them trained"]
        lines.append(
            f"{fit.steps} steps in {fit.seconds:.0f} s{' (stopped early)' if fit.stopped_early else ''}, loss a token "
            f"{fit.first_loss:.3f} -> {fit.last_loss:.3f}"
        )
        if fit.best is not None:
            lines.append(f"best validation loss {fit.best:.3f} after step {fit.best_step} ({self.validated_on})")
        if self.events is not None:
            lines.append(f"loss curves: tensorboard --logdir {self.events}")
        return "\n".join(lines)


def train(
    dataset: Dataset,
    source: Source,
    output: Path,
    *,
    budget: Mapping[str, Any] | None = None,
    prompt: Given = None,
    other_prompt: bool = False,
    overwrite: bool = False,
    progress: str | None = None,
    warn: Warn = lambda text: None,
) -> TrainReport:
    """Train `source` on the dataset's histories and write a Hugging Face checkpoint to `output`, whole or absent.

    Where items follow each other directly in the prompt (no separator, no suffix, no end token), a decoder
    learns all items of a history at once; otherwise, and by an encoder-decoder, every item that follows another
    is learned as an answer to a prompt of its own. The weights of the best validation loss are kept. `budget`
    changes settings of `TrainingBudget` from what is usual for `source`; `prompt` changes options of the prompt
    from those that its checkpoint was trained with, of which `warn` is told (with `other_prompt`: from none).
    Beside the weights lie `training.json` and TensorBoard events. An interrupted training is kept in
    `output`.work and goes on when called again. Raises `SpecBeamError` where there is nothing to learn from,
    prompts do not fit the model or its context, `output` exists, or training fails (see `fit`).
    """
    output = checked(dataset, source, output, overwrite=overwrite)
    chosen, seed = chosen_settings(budget)
    check_replaceable(output, kind=TRAINING, replace=overwrite)  # before the work; whole_directory checks again
    dataset.require_training()
    options = as_trained(
        Trained.of(source.origin),
        prompt,
        other_prompt=other_prompt,
        harmless=PromptOptions.__struct_fields__,
        warn=warn,
    )
    source.check_prompt(chat=options.chat)
    text = " ".join([(options.prompt or "").replace("{history}", " "), options.separator, options.join])
    with quiet():
        tokenizer = source.tokenizer(dataset.catalog, text)
        form = Format.compile(tokenizer, dataset.catalog, options, warn)
        model = source.model(tokenizer, dataset.catalog, form.longest, seed)
    check_context(context_of(model.config), form.longest, options.history_length)
    settings = settle(source, hidden_width(model), chosen)
    histories, held_out, validated_on = split(dataset, seed)
    reading = reading_of(model.config)
    packed = reading.packs and form.packed
    rows = held_out_rows(held_out, form, packed=packed)
    rows = rows[:: -(-len(rows) // MOST_VALIDATION) or 1]  # evenly over all users
    work = output.with_name(f"{output.name}.work")
    report = fit(
        model, training_samples(histories, form, seed, packed=packed), reading.collate, reading.loss, settings, work,
        validate=reading.validation_loss(rows, 4 * settings.batch) if rows else None, progress=progress,
        fingerprint=fingerprint(dataset, source, options),
    )  # fmt: skip
    weights = list(model.parameters())
    counts = sum(w.numel() for w in weights), sum(w.numel() for w in weights if w.requires_grad)
    events = output / EVENTS if (work / EVENTS).is_dir() else None
    result = TrainReport(*counts, validated_on, options, settings, report, events)
    source.write(
        model, tokenizer, output, record=TRAINING, content=record(result, dataset, source, form),
        events=work / EVENTS, overwrite=overwrite,
    )  # fmt: skip
    shutil.rmtree(work)
    return result


def checked(dataset: Dataset, source: Source, output: Path, *, overwrite: bool) -> Path:
    """Where to write. Raises `OptionError` for arguments that are something else."""
    checks.instance(dataset, "dataset", Dataset, "such as Dataset.open(folder)")
    checks.instance(source, "source", Source, "such as FreshModel('4x192')")
    checks.flag(overwrite, "overwrite")
    return checks.path(output, "output")


def settle(source: Source, hidden: int, chosen: dict[str, Any]) -> TrainingBudget:
    """What is usual for the source, with what was chosen in its place."""
    usual: dict[str, Any] = {"learning_rate": source.rate / hidden}
    if chosen.get("steps") is None and chosen.get("epochs") is None:
        usual["epochs"] = source.epochs
    return TrainingBudget(**{**usual, **chosen})


def split(dataset: Dataset, seed: int) -> tuple[list[Int64], Pairs, str]:
    """Histories to train on, (history, labels) to validate on, and what the latter are."""
    histories, pairs = list(dataset.train), list(dataset.valid_sequences)
    if pairs:
        return histories, pairs, "the validation split"
    users = [user for user, history in enumerate(histories) if len(history) > 2]
    if len(users) < 2:
        return histories, [], "nothing"
    rng = np.random.default_rng([seed, 1])
    for user in rng.choice(users, max(1, round(HELD_OUT * len(users))), replace=False).tolist():
        history = histories[user]
        pairs.append((history[:-1], history[-1:]))
        histories[user] = history[:-1]
    return histories, pairs, f"the last item of {len(pairs)} training users, held out"


def fingerprint(dataset: Dataset, source: Source, options: PromptOptions) -> str:
    """What makes a training the same training, besides its budget."""
    data = blake2b(repr(dataset.catalog.identifiers).encode("utf-8", "surrogatepass"), digest_size=8)
    for history in (*dataset.train, *(items for pair in dataset.valid_sequences for items in pair)):
        data.update(len(history).to_bytes(8, "little") + history.tobytes())
    return f"{source}, {options}, data {data.hexdigest()}"


def record(report: TrainReport, dataset: Dataset, source: Source, form: Format) -> bytes:
    """The content of training.json."""
    content = {
        "specbeam_version": __version__,
        "data": str(dataset.folder),
        "source": str(source),
        **form.recorded(report.prompt),
        "parameters": report.parameters,
        "trained_parameters": report.trained_parameters,
        "validated_on": report.validated_on,
        "budget": report.budget,
        "fit": report.fit,
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1)
