"""Models learn: train a target or a draft on histories, align a draft to its target."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    CheckpointType,
    PathType,
    Verb,
    given,
    item_base_option,
    next_command,
    prompt_of,
    prompt_options,
    together,
)
from .output import Bars, claim_outputs, download_bars, fetched
from .overwrite import tell_losses
from .values import collected

if TYPE_CHECKING:
    from ..align.align import AlignOptions
    from ..align.objectives import Objective
    from ..align.training.sources import Source
    from ..catalog.histories.dataset import Dataset

CONFIG_HELP = (
    "Fresh weights of this shape: LAYERSxHIDDEN such as 4x192, llama-tiny, -small, -medium, -68m or -160m; of an "
    "encoder-decoder t5:LAYERSxHIDDEN such as t5:4x128, t5-tiny, -small or -tiger; a config.json, or a checkpoint."
)
FROM_HELP = "Train these weights further: a folder's, or a hub's org/name[@revision] (docs/checkpoints.md)."
RATE_HELP = "Default: 0.5 (--config), 0.08 (--from) or 1 (--lora) divided by the hidden width."
OBJECTIVES = click.Choice(["path-kd", "atspeed-s", "atspeed-r", "seq-kd", "word-kd", "tvd-kd", "sft"])
OBJECTIVE_HELP = "What the draft learns (docs/alignment.md)."
ALPHA_HELP = "The objective's share of the loss, the data's having the rest. Default: 0.7, path-kd 1."
DRAFT_HELP = "A draft to start from, or the shape of a fresh one as for `specbeam train --config`."
LAYERS_HELP = "Start from the target's first N layers and its embeddings instead."
WINDOWS_HELP = "Places of each history to learn from: the last one, and others at random."
ON_POLICY_HELP = "Share of batches on the draft's own trees, judged by the target."
ALIGN_RATE_HELP = "Default: 0.4 divided by the hidden width."
TRAIN_PRECISION_HELP = "Of computing; weights stay in fp32. Default: bf16 on a GPU that has it, else fp32."

data_option = click.option(
    "--data", required=True, type=PathType, metavar="DATASET", help="Folder with index.json and histories."
)


@dataclass(frozen=True)
class Data:
    """What is learned from."""

    data: Path
    item_base: int | None

    def opened(self) -> "Dataset":
        """The dataset; lines of it that are unusable are told of."""
        from ..catalog.histories.dataset import Dataset

        dataset = Dataset.open(self.data, item_base=self.item_base)
        if dataset.rejects:
            first = dataset.rejects[0]
            click.echo(
                f"{len(dataset.rejects)} lines of {self.data} are unusable and left out; the first is {first.source}, "
                f"line {first.line}: {first.reason}",
                err=True,
            )
        return dataset


@dataclass(frozen=True)
class Start:
    """What is trained."""

    config: str | None
    start: str | None
    lora: int | None
    tokenizer: str | None

    def found(self) -> "Source":
        from ..align.training.sources import find_source

        with download_bars() as bars:
            return find_source(self.config, self.start, self.lora, self.tokenizer, bar=bars)


@dataclass(frozen=True)
class DraftStart:
    """What is aligned."""

    draft: str | None
    layers: int | None
    shared: bool

    def found(self, target: Path) -> "Source":
        from ..align.drafts import find_draft

        with download_bars() as bars:
            return find_draft(self.draft, target, self.layers, self.shared, bar=bars)


@dataclass(frozen=True)
class Lessons:
    """What a draft learns from its target."""

    objective: Any
    alpha: float | None
    temperature: float | None
    softened: float | None
    top_k: int
    windows: int
    places: int | None
    on_policy: float
    teacher: Path | None

    def found(self) -> "Objective":
        from ..align.objectives import find_objective

        own = {"alpha": self.alpha, "temperature": self.temperature, "softened": self.softened, "top_k": self.top_k}
        return find_objective(self.objective, **own)

    def options(self) -> "AlignOptions":
        from ..align.align import AlignOptions

        return AlignOptions(top_k=self.top_k, windows=self.windows, places=self.places, on_policy=self.on_policy)


def amount_options(epochs: str, batch_size: str) -> Callable[[Verb], Verb]:
    """How much to learn from, with the help texts of those options that differ between verbs."""
    return together(
        click.option("--epochs", type=float, help=epochs),
        click.option("--steps", type=click.IntRange(1), help="In place of --epochs."),
        click.option("--batch-size", "batch", type=click.IntRange(1), help=batch_size),
    )


def fit_options(learning_rate: str, weight_decay: str, checks: str, patience: str) -> Callable[[Verb], Verb]:
    """How to learn it, with the help texts of those options that differ between verbs."""
    return together(
        click.option("--learning-rate", type=float, help=learning_rate),
        click.option("--weight-decay", type=float, help=weight_decay),
        click.option("--checks", type=click.IntRange(1), help=checks),
        click.option("--patience", type=click.IntRange(1), help=patience),
        click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), help=TRAIN_PRECISION_HELP),
        click.option("--seed", type=click.IntRange(0), help="Default: 0."),
    )


@click.command()
@data_option
@click.option("--output", "-o", required=True, type=PathType, help="Directory of the checkpoint to write.")
@click.option("--config", metavar="NAME", help=CONFIG_HELP)
@click.option("--from", "start", type=CheckpointType, metavar="CHECKPOINT", help=FROM_HELP)
@click.option("--lora", type=click.IntRange(1), metavar="RANK", help="With --from: train LoRA adapters of this rank.")
@click.option(
    "--tokenizer", type=CheckpointType, metavar="CHECKPOINT", help="With --config: a draft's must be its target's."
)
@prompt_options("As for export.")
@amount_options(
    epochs="Default: 10 from fresh weights, 3 from a checkpoint's.",
    batch_size="Sequences in one forward pass. Default: 16.",
)
@click.option("--gradient-accumulation", type=click.IntRange(1), help="Forward passes a step. Default: 1.")
@fit_options(
    learning_rate=RATE_HELP,
    weight_decay="Default: 0.05.",
    checks="Looks at the validation loss, and checkpoints. Default: 10.",
    patience="Checks without a better loss before it stops. Default: 3.",
)
@item_base_option
@click.option("--overwrite", is_flag=True, help="Replace an earlier checkpoint of this verb.")
@collected("data", Data)
@collected("source", Start)
def train(data: Data, output: Path, source: Start, other_prompt: bool, overwrite: bool, **budget: Any) -> None:
    """Train a target or a draft on a dataset's histories: from fresh weights, or a checkpoint's, whole or with LoRA.

    The checkpoint of the best validation loss is written, with training.json and TensorBoard events beside it. Ctrl-C
    keeps what is done in OUTPUT.work; the same command goes on from there.

    \b
    Examples:
      specbeam train --data beauty --config 4x192 --output target
      specbeam train --data beauty --config 1x96 --output draft
      specbeam train --data beauty --config t5:4x128 --output target
      specbeam train --data beauty --from Qwen3-0.6B --lora 16 --precision bf16 --output target
      specbeam train --data beauty --from Qwen/Qwen3-0.6B --lora 16 --output target
      specbeam train --data beauty --from Qwen3-0.6B --prompt 'Bought: {history} Next:' --separator ' ' -o target
      specbeam train --data beauty --config llama-68m --tokenizer target --output draft
    """
    from ..align.training.train import train as trained
    from ..catalog.files import check_replaceable
    from ..export.trained import TRAINING

    claim_outputs(output)
    check_replaceable(output, kind=TRAINING, replace=overwrite)  # before anything is fetched
    tell_losses(output, TRAINING, overwrite=overwrite)
    form, dataset, found = prompt_of(budget), data.opened(), source.found()
    report = trained(
        dataset, found, output, budget=given(budget), prompt=form, other_prompt=other_prompt, overwrite=overwrite,
        progress="training", warn=partial(click.echo, err=True),
    )  # fmt: skip
    told = report.prompt.arguments()
    as_target = next_command("export", "--target", output, "--catalog", dataset.index, *told, "--output", "bundle")
    base = () if data.item_base is None else ("--item-base", data.item_base)
    as_draft = next_command(
        "align", "--target", "TARGET", "--draft", output, "--data", data.data, *base, *told, "--output", "aligned"
    )
    click.echo(f"{report.summary()}\nWrote {output}.")
    click.echo(f"Next, as a target: {as_target}\nNext, as a draft: {as_draft}")


@click.command()
@click.option(
    "--target", required=True, type=CheckpointType, metavar="CHECKPOINT", help="The target, or its LoRA adapter."
)
@click.option("--draft", metavar="CHECKPOINT|CONFIG", help=DRAFT_HELP)
@click.option("--from-target-layers", "layers", type=click.IntRange(1), metavar="N", help=LAYERS_HELP)
@click.option("--share-embeddings", "shared", is_flag=True, help="With --from-target-layers: embeddings and head stay.")
@data_option
@click.option("--output", "-o", required=True, type=PathType, help="Directory of the aligned draft.")
@click.option("--objective", default="path-kd", show_default=True, type=OBJECTIVES, help=OBJECTIVE_HELP)
@click.option("--alpha", type=float, help=ALPHA_HELP)
@click.option("--temperature", type=float, help="atspeed-r: divides both models' logits. Default: 1.")
@click.option("--softened", type=float, help="atspeed-s: temperature of a softmax over probabilities, as published.")
@click.option(
    "--top-k", "-k", default=20, show_default=True, type=click.IntRange(1), help="Width of the target's beams."
)
@click.option("--windows", default=1, show_default=True, type=click.IntRange(1), help=WINDOWS_HELP)
@click.option("--places", type=click.IntRange(1), metavar="N", help="At most so many places in all. Default: all.")
@click.option("--on-policy", default=0.0, show_default=True, metavar="SHARE", help=ON_POLICY_HELP)
@click.option(
    "--teacher", type=PathType, help="Folder that keeps the target's trees for other runs. Default: not kept."
)
@prompt_options("As for export.")
@amount_options(
    epochs="Default: 10 for a fresh draft or target layers, 3 for a checkpoint.",
    batch_size="Prompts in one forward pass. Default: 32.",
)
@fit_options(
    learning_rate=ALIGN_RATE_HELP,
    weight_decay="Default: 0.01.",
    checks="Looks at the validation acceptance. Default: 10.",
    patience="Checks without a better one before it stops. Default: 3.",
)
@item_base_option
@click.option("--overwrite", is_flag=True, help="Replace an earlier draft of this verb.")
@collected("data", Data)
@collected("draft", DraftStart)
@collected("lessons", Lessons)
def align(
    target: str, draft: DraftStart, data: Data, output: Path, lessons: Lessons, other_prompt: bool, overwrite: bool,
    **budget: Any,
) -> None:  # fmt: skip
    """Align a draft to its target: it learns what the target's beam search ranks highest, so that more is accepted.

    The target's beam trees over the training histories are made first and stored compactly; then the draft is
    trained on prompts and trees in one pass. The weights that have most of what validation users need among
    40 drafted nodes a depth are written, with alignment.json and TensorBoard events beside them. Ctrl-C keeps what
    is done in OUTPUT.work; the same command goes on from there. Objectives: docs/alignment.md.

    \b
    Examples:
      specbeam align --target target --draft draft --data beauty --output aligned
      specbeam align --target target --from-target-layers 1 --data beauty --output aligned --epochs 10
      specbeam align --target target --draft 2x128 --data beauty --objective atspeed-s --teacher trees --output s
    """
    from ..align.align import align as run
    from ..catalog.files import check_replaceable
    from ..export.trained import ALIGNMENT

    claim_outputs(output)
    check_replaceable(output, kind=ALIGNMENT, replace=overwrite)  # before anything is fetched
    tell_losses(output, ALIGNMENT, overwrite=overwrite)
    objective, dataset, folder = lessons.found(), data.opened(), fetched(target, "target")
    source = draft.found(folder)
    form = prompt_of(budget)
    with Bars() as bars:
        report = run(
            dataset, folder, source, objective, output, prompt=form, other_prompt=other_prompt, teacher=lessons.teacher,
            overwrite=overwrite, budget=given(budget), progress=bars, bar="aligning",
            options=lessons.options(),
            warn=partial(click.echo, err=True),
        )  # fmt: skip
    command = next_command(
        "export", "--target", target, "--draft", output, "--catalog", dataset.index, *report.prompt.arguments(),
        *["--other-prompt"] * other_prompt, "--output", "bundle",
    )  # fmt: skip
    click.echo(f"{report.summary()}\nWrote {output}. Next: {command}")
