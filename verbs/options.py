"""Types, help texts and options that several verbs share."""

import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import click

from ..catalog.checks import MOST_MEMORY, MOST_THREADS

Verb = Callable[..., Any]

PathType = click.Path(path_type=Path)
CheckpointType = click.Path()  # text as it was typed: ./x is a folder's path, and org/name may be a hub's
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
PROMPT_FILE_HELP = "In place of --prompt: a file that holds it, taken as it is, the last line break included."
CHAT_VARIABLE_HELP = "With --chat: a variable of the template; JSON, True, False, None, or text. Several may be given."
OTHER_PROMPT_HELP = (
    "What is not given is as training.json or alignment.json beside the checkpoint says, which must not be "
    "contradicted; with this they are not looked at."
)
DRAFTER_HELP = (
    "What drafts are guessed by: the draft model, a pool of histories (retrieval), both, or none. Default: what there "
    "is of the two."
)
POOL_HELP = (
    "Of `specbeam build-pool --items`: the drafter retrieval needs no draft model. Strict and sampled lists stay the "
    "same."
)
LISTED, BY_DEFAULT = "As `specbeam inspect` lists", "Default: the bundle's default engine, the first built."
PICTURE_HELP = "A .html (opens offline, tells more on hovering), .svg or .png; may be given several times."


OUTPUT_HELP = "JSON lines; - is standard output. With --ray a folder of them, in partitions."
RAY_HELP = (
    "With --ray: the head of a cluster that this machine is a node of, e.g. 10.0.0.1:6379. Default: RAY_ADDRESS, or "
    "else a cluster on this machine, for this run alone."
)


class Share(click.FloatRange):
    """A number from 0 to 1; click's own range holds NaN, too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value} is no number; expected one from 0 to 1.", param, ctx)
        return number


class MemorySize(click.ParamType):  # type: ignore[type-arg]  # generic in late versions of click
    """Bytes, by a number and a unit: 2GB, 512MiB; a number alone is bytes."""

    name = "size"
    UNITS: ClassVar = {"": 1, "B": 1} | {
        f"{prefix}{unit}": base**power
        for power, prefix in enumerate("KMGT", 1)
        for unit, base in (("", 1000), ("B", 1000), ("IB", 1024))
    }

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(value).strip())
        unit = None if found is None else self.UNITS.get(found[2].upper())
        size = 0.0 if found is None or unit is None else float(found[1]) * unit
        if not 1 <= size <= MOST_MEMORY:
            self.fail(f"{value!r} is no size of memory; expected such as 2GB, 512MiB, or bytes.", param, ctx)
        return int(size)


def together(*options: Callable[[Verb], Verb]) -> Callable[[Verb], Verb]:
    """One decorator for several options, listed by --help in this order."""

    def decorate(verb: Verb) -> Verb:
        for option in reversed(options):
            verb = option(verb)
        return verb

    return decorate


bundle_argument = click.argument("bundle", type=PathType)


class FileOrUri(click.Path):
    """A file, "-", or the URI of one in object storage."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, allow_dash=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from ..catalog.histories.storage import Remote, place_of

        place = place_of(value) if isinstance(value, str) else value
        return place if isinstance(place, Remote) else super().convert(value, param, ctx)


histories_argument = click.argument("histories", nargs=-1, required=True, type=FileOrUri())

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
engine_option = click.option("--engine", metavar="NAME", help=f"{LISTED}; or torch-cpu-fp32. {BY_DEFAULT}")
batch_option = click.option(
    "--batch-size", default=8, show_default=True, type=click.IntRange(1), help="Requests in one call."
)
memory_option = click.option(
    "--memory", type=MemorySize(), metavar="SIZE",
    help="Most memory of each process, engines and catalog included, e.g. 2GB: batches become smaller and calls are "
    "cut, the lists stay the same. For engines on the CPU. Default: what it takes.",
)  # fmt: skip
threads_option = click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), help="Threads of each engine. Default: all processors."
)
workers_option = click.option(
    "--workers", type=click.IntRange(1, MOST_THREADS),
    help="Processes that share the batches, each with engines of one thread unless --threads says another number. "
    "Default: 1; with --ray, as many as the cluster has room for.",
)  # fmt: skip
ray_options = together(
    click.option("--ray", is_flag=True, help="Spread the work over a Ray cluster; OUTPUT is a folder (docs/scale.md)."),
    click.option("--ray-address", metavar="ADDRESS", help=RAY_HELP),
)
strict_option = click.option(
    "--strict-input", is_flag=True, help="Exit with status 3 if lines were rejected, although the rest was done."
)
format_option = click.option("--format", type=FORMATS, help="Of all HISTORIES. Default: by each file's name.")
format_options = together(
    format_option,
    click.option("--item-base", default=0, show_default=True, help="First item's number in AtSpeed files (theirs: 1)."),
)
item_base_option = click.option(
    "--item-base", type=int, help="First item's number in AtSpeed files. Default: 1, as published."
)


def chat_variables(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, Any] | None:
    """NAME=VALUE, each name once."""
    from ..catalog.prompts.options import variable_value

    found: dict[str, Any] = {}
    for name, equals, value in (entry.partition("=") for entry in values):
        if not name.isidentifier() or not equals:
            raise click.BadParameter(f"got {name + equals + value!r}; expected NAME=VALUE.", context, option)
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice.", context, option)
        found[name] = variable_value(value)
    return found or None


def prompt_options(prompt: str) -> Callable[[Verb], Verb]:
    """What stands around the items; `prompt` begins the help of --prompt. See `prompt_of`."""
    return together(
        click.option("--prompt", metavar="TEXT", help=f"{prompt} Default: <bos> and the items' tokens."),
        click.option("--prompt-file", type=PathType, metavar="FILE", help=PROMPT_FILE_HELP),
        click.option("--separator", metavar="TEXT", help="Between two items of the history. Default: nothing."),
        click.option("--join", metavar="TEXT", help="Between two strings of an identifier. Default: nothing."),
        click.option("--chat/--no-chat", default=None, help="Wrap the prompt into the tokenizer's chat template."),
        click.option("--system", metavar="TEXT", help="With --chat: the system message."),
        click.option(
            "--chat-variable", "chat_variables", multiple=True, metavar="NAME=VALUE", callback=chat_variables,
            help=CHAT_VARIABLE_HELP,
        ),
        click.option("--history-length", type=click.IntRange(1), help="Most recent items kept. Default: 20."),
        click.option("--end-token", type=END_TOKENS, help=f"{END_TOKEN_HELP} Default: auto."),
        click.option("--other-prompt", is_flag=True, help=OTHER_PROMPT_HELP),
    )  # fmt: skip


PROMPT_OPTIONS = ("prompt", "separator", "join", "chat", "system", "chat_variables", "history_length", "end_token")


def prompt_of(options: dict[str, Any]) -> dict[str, Any]:
    """Takes what was given of `prompt_options` out of a verb's options: fields of `PromptOptions`."""
    from ..catalog.errors import OptionError

    file, told = options.pop("prompt_file"), given({name: options.pop(name) for name in PROMPT_OPTIONS})
    if file is None:
        return told
    if "prompt" in told:
        raise OptionError(f"got --prompt and --prompt-file {file}; expected one of them. Leave the other out.")
    return {**told, "prompt": _read_prompt(file)}


def _read_prompt(file: Path) -> str:
    """The text of a file as it is, line breaks and all."""
    from ..catalog.errors import PromptError

    try:
        return file.read_bytes().decode("utf-8-sig")  # a byte order mark is no part of a text
    except OSError as error:
        raise PromptError(f"{file}: cannot be read: {error.strerror}. Check the path.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise PromptError(f"{file}, line {line}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from None


def next_command(*words: object) -> str:
    """A command of ours as it is typed into a shell."""
    return shlex.join(["specbeam", *map(str, words)])


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Those that were given on the command line: the rest keep the defaults of what takes them."""
    return {name: value for name, value in values.items() if value is not None}


def flags(options: Iterable[str]) -> str:
    """Options as they are written on the command line."""
    return ", ".join("--" + name.replace("_", "-") for name in options)
