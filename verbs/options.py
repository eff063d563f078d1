"""Types, help texts and options that several verbs share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..runtime import DraftShape

Verb = Callable[..., Any]

PathType = click.Path(path_type=Path)
FileOrPipe = click.Path(path_type=Path, allow_dash=True)
PRECISIONS = click.Choice(["fp32", "fp16", "bf16"])
SCORINGS = click.Choice(["full", "constrained"])
MODES = click.Choice(["strict", "tolerant", "relaxed", "sampled"])
SPECULATIONS = click.Choice(["auto", "fixed"])
FORMATS = click.Choice(["jsonl", "lcrec", "atspeed", "minionerec", "parquet"])
DRAFTERS = ["model", "retrieval", "both", "none"]
END_TOKENS = click.Choice(["auto", "always", "never"])

VERIFY_HELP = (
    "strict: exactly the target's beam search (scores within 1e-4, which is rounding, may swap). sampled: a draw "
    "without replacement, exactly from the target's distribution. tolerant and relaxed trade exactness for fewer calls "
    "(docs/modes.md)."
)
SPECULATION_HELP = (
    "How much to draft. auto: as much as pays, by measured latency and acceptance (see `specbeam tune`). fixed: the "
    "same in every round. Default: auto where the lists do not depend on it (strict, sampled), unless a width or "
    "length is given."
)
END_TOKEN_HELP = "End identifiers with the eos token, as the models were trained. auto: where their lengths differ."
DRAFTER_HELP = (
    "What drafts are guessed by: the draft model, a pool of histories (retrieval), both, or none. Default: what there "
    "is of the two."
)
POOL_HELP = (
    "Of `specbeam build-pool --items`: the drafter retrieval needs no draft model. Strict and sampled lists stay the "
    "same."
)
PICTURE_HELP = "A .html (opens offline, tells more on hovering), .svg or .png; may be given several times."


def together(*options: Callable[[Verb], Verb]) -> Callable[[Verb], Verb]:
    """One decorator for several options, listed by --help in this order."""

    def decorate(verb: Verb) -> Verb:
        for option in reversed(options):
            verb = option(verb)
        return verb

    return decorate


bundle_argument = click.argument("bundle", type=PathType)
histories_argument = click.argument("histories", nargs=-1, required=True, type=FileOrPipe)

verify_option = click.option("--verify", "mode", default="strict", show_default=True, type=MODES, help=VERIFY_HELP)
scoring_option = click.option(
    "--scoring", type=SCORINGS, help="Default: the bundle's; always constrained with --verify sampled."
)
mode_options = together(
    click.option("--slack", type=float, metavar="NATS", help="tolerant: as for `specbeam infer`."),
    click.option("--temperature", type=float, help="relaxed, sampled: as for `specbeam infer`."),
)
pool_option = click.option("--pool", type=PathType, help=POOL_HELP)
drafter_options = together(click.option("--drafter", type=click.Choice(DRAFTERS), help=DRAFTER_HELP), pool_option)
speculation_option = click.option("--speculation", type=SPECULATIONS, help=SPECULATION_HELP)
shape_options = together(
    click.option("--draft-width", type=click.IntRange(1), help="fixed: nodes drafted a depth. Default: 40."),
    click.option("--draft-length", type=click.IntRange(1), help="fixed: depths drafted in a round. Default: 3."),
)
engine_option = click.option(
    "--engine", metavar="NAME", help="As `specbeam inspect` lists; or torch-cpu-fp32. Default: the only one."
)
batch_option = click.option(
    "--batch-size", default=8, show_default=True, type=click.IntRange(1), help="Requests in one call."
)
threads_option = click.option(
    "--threads", type=click.IntRange(1, 1024), help="Threads of each engine. Default: all processors."
)
format_option = click.option("--format", type=FORMATS, help="Of all HISTORIES. Default: by each file's name.")
format_options = together(
    format_option,
    click.option("--item-base", default=0, show_default=True, help="First item's number in AtSpeed files (theirs: 1)."),
)
item_base_option = click.option(
    "--item-base", type=int, help="First item's number in AtSpeed files. Default: 1, as published."
)


def prompt_options(prompt: str) -> Callable[[Verb], Verb]:
    """What stands around the items; `prompt` begins the help of --prompt."""
    return together(
        click.option("--prompt", metavar="TEXT", help=f"{prompt} Default: <bos> and the items' tokens."),
        click.option(
            "--separator", default="", show_default=True, metavar="TEXT", help="Between two items of the history."
        ),
        click.option("--chat", is_flag=True, help="Wrap the prompt into the tokenizer's chat template."),
        click.option(
            "--history-length", default=20, show_default=True, type=click.IntRange(1), help="Most recent items kept."
        ),
        click.option("--end-token", default="auto", show_default=True, type=END_TOKENS, help=END_TOKEN_HELP),
    )


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Those that were given on the command line: the rest keep the defaults of what takes them."""
    return {name: value for name, value in values.items() if value is not None}


def flags(options: Iterable[str]) -> str:
    """Options as they are written on the command line."""
    return ", ".join("--" + name.replace("_", "-") for name in options)


def shape_by_hand(width: int | None, length: int | None) -> "DraftShape | None":
    """Of `shape_options`; None where neither was given."""
    from ..runtime import DraftShape

    by_hand = given({"width": width, "length": length})
    return DraftShape(**by_hand) if by_hand else None
