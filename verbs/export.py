"""From checkpoints to a bundle: export, and demo, which goes all the way."""

from pathlib import Path
from typing import Any

import click

from .options import PRECISIONS, SCORINGS, CheckpointType, PathType, flags, next_command, prompt_of, prompt_options
from .output import Stages, claim_outputs, fetched
from .overwrite import tell_losses

TARGET_HELP = (
    "The target: a folder as save_pretrained writes it, or org/name[@revision] of a hub (docs/checkpoints.md). Any "
    "decoder-only architecture of transformers that passes the check of its graph, T5 or mT5."
)
SCORING_HELP = (
    "The bundle's default. full: log-softmax over the model's whole vocabulary, as generate does; constrained: "
    "renormalised over the tokens that the catalog allows."
)


@click.command()
@click.option("--target", required=True, type=CheckpointType, metavar="CHECKPOINT", help=TARGET_HELP)
@click.option("--draft", type=CheckpointType, metavar="CHECKPOINT", help="The draft (without it: plain beam search).")
@click.option(
    "--catalog",
    type=PathType,
    help="Identifiers of the items: an LC-Rec style index.json, or tables (.parquet, .arrow, a folder).",
)
@click.option("--text", is_flag=True, help="No catalog: a bundle that writes text, for `specbeam generate`.")
@click.option("--items", type=PathType, help="Titles of the items: items.json.")
@prompt_options("Prompt with {history} in it (--text: {prompt}).")
@click.option("--scoring", default="full", show_default=True, type=SCORINGS, help=SCORING_HELP)
@click.option("--max-top-k", default=200, show_default=True, type=click.IntRange(1), help="Longest list to ask for.")
@click.option("--precision", default="fp32", show_default=True, type=PRECISIONS)
@click.option("--checkpoints/--no-checkpoints", default=True, help="Keep the checkpoints for the torch engine.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle, its engines included.")
@click.option("--output", "-o", required=True, type=PathType, help="Directory of the bundle to write.")
def export(target: str, output: Path, text: bool, **options: Any) -> None:
    """Export a target and a draft checkpoint for one catalog to a bundle of ONNX graphs.

    With --text: one model that writes text, drafted from pools.

    \b
    Examples:
      specbeam export --target lcrec-7b --draft lcrec-68m --catalog index.json --items items.json -o bundle
      specbeam export --target T --draft D --catalog index.json --prompt 'Bought: {history}.' --separator ', ' -o b
      specbeam export --target T --catalog titles.json --prompt 'Bought:{history}. Next:' --separator , -o b
      specbeam export --target T --catalog index.json --prompt-file prompt.txt --separator ', ' -o b
      specbeam export --target qwen3 --catalog index.json --chat --chat-variable enable_thinking=false \\
        --system 'You recommend.' --prompt 'Bought: {history}' --separator ', ' -o b
      specbeam export --target Qwen/Qwen3-0.6B@main --catalog titles.json --prompt 'Bought:{history}.' -o b
      specbeam export --text --target qwen3-8b --chat --prompt 'Describe the item: {prompt}' -o text-bundle

    \b
    The catalog's identifiers are tokens of the models' tokenizer ("<a_47>") or text of several tokens (" desk lamp").
    """
    from ..catalog.errors import OptionError
    from ..catalog.files import check_replaceable
    from ..engines.bundle.model import MANIFEST

    prompt = prompt_of(options)
    claim_outputs(output)
    check_replaceable(output, kind=MANIFEST, replace=options["overwrite"])  # before anything is fetched
    tell_losses(output, MANIFEST, overwrite=options["overwrite"])
    if text:
        _refuse_items_options()
        from ..export.text import export_text

        shared = {name: options[name] for name in ("precision", "checkpoints", "overwrite")}
        export_text(fetched(target, "target"), output, progress=Stages(), **shared, **prompt)
    else:
        if options["catalog"] is None:
            raise OptionError("got no catalog: expected --catalog index.json, or --text for a model that writes text.")
        from ..export import export_bundle

        export_bundle(
            fetched(target, "target"),
            fetched(options.pop("draft"), "draft"),
            options.pop("catalog"),
            options.pop("items"),
            output,
            progress=Stages(),
            **options,
            **prompt,
        )
    click.echo(f"Wrote {output}. Next: {next_command('build-engine', output)}")


def _refuse_items_options() -> None:
    """Raise `OptionError` where options were given that mean nothing for text."""
    from click.core import ParameterSource

    from ..catalog.errors import OptionError

    context = click.get_current_context()
    names = (
        "draft", "catalog", "items", "separator", "join", "history_length", "end_token", "other_prompt", "scoring",
        "max_top_k",
    )  # fmt: skip
    told = [name for name in names if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if told:
        raise OptionError(f"{flags(told)}: for bundles of items only. Leave that out with --text.")


@click.command()
@click.option("--output", "-o", default="demo", show_default=True, type=PathType, help="Directory for all it makes.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier demo's files.")
def demo(output: Path, overwrite: bool) -> None:
    """Train a tiny pair on generated histories, export, build, infer and check it: about two minutes.

    \b
    Example:
      specbeam demo --output demo
    """
    from .demo_steps import run_demo

    claim_outputs(output)
    tell_losses(output, "bundle", overwrite=overwrite)
    run_demo(output, overwrite=overwrite)
