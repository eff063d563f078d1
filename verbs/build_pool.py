"""Retrieval pools: build-pool makes one of earlier texts, or of histories."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..catalog.errors import OptionError, SpecBeamError
from .options import FORMATS, FileOrPipe, PathType, flags, given, strict_option, together
from .output import Bars, claim_outputs, refuse_rejects, write_rejects
from .overwrite import tell_losses

if TYPE_CHECKING:
    from ..catalog.records import Reject, RejectLine
    from ..pools.texts.pool import TextPoolFacts

T = TypeVar("T")
SHOWN = 20  # groups in the summary
TOKENIZER_HELP = "The text bundle that the pool is for, or a folder with its tokenizer.json."
GROUPS_HELP = (
    "Ids and names of their groups, as group-users and group-items write. Each group's texts get a pool of their own; "
    "--items: what each group's users bought is counted, too."
)
END_TOKEN_HELP = "Behind every text that has ended. Default: the eos_token of the tokenizer_config.json, if any."
ITEMS_HELP = "The files are histories; the pool says which items followed which, for `specbeam infer --pool`."

text_options = together(
    click.option("--tokenizer", type=PathType, help=TOKENIZER_HELP),
    click.option("--end-token", metavar="TOKEN", help=END_TOKEN_HELP),
    click.option("--depth", type=click.IntRange(1), help="Most tokens that a draft may be deep. Default: 12."),
    click.option("--query", type=click.IntRange(1), help="Most tokens that may be looked up. Default: 4."),
)
item_options = together(
    click.option("--items", is_flag=True, help=ITEMS_HELP),
    click.option("--format", type=FORMATS, help="--items: of all files. Default: by each file's name."),
    click.option("--item-base", type=int, help="--items: first item's number in AtSpeed files. Default: 0."),
)


@click.command("build-pool")
@click.argument("files", metavar="TEXTS...", nargs=-1, required=True, type=FileOrPipe)
@click.option("--output", "-o", required=True, type=PathType, help="The pool: a folder.")
@click.option("--groups", type=PathType, metavar="JSON", help=GROUPS_HELP)
@text_options
@item_options
@click.option("--rejects", type=PathType, help="Where unusable lines go. Default: OUTPUT.rejects.jsonl.")
@strict_option
@click.option("--overwrite", is_flag=True, help="Replace an existing pool.")
def build_pool(
    files: tuple[Path, ...], output: Path, groups: Path | None, items: bool, rejects: Path | None, strict_input: bool,
    overwrite: bool, **options: Any,
) -> None:  # fmt: skip
    """Build a pool of earlier texts, from which `specbeam generate --pool` drafts.

    A line of a file is such as {"id": "u1", "text": "Likes board games ..."}; other keys are ignored, and what generate
    writes can be given as it is. The id says which group the text belongs to; one in no group is in the pool of all
    texts alone.

    \b
    Examples:
      specbeam build-pool texts.jsonl --tokenizer bundle --output pool
      specbeam build-pool texts.jsonl more.jsonl --tokenizer bundle --groups groups.json -o pool --overwrite
      specbeam build-pool --items sequential_train.txt --item-base 1 --output item-pool
    """
    from ..catalog.files import check_replaceable
    from ..pools.files import POOL_FILE
    from ..runtime.runs.inference import beside, check_outputs

    chosen = given(options)
    foreign = {"tokenizer", "end_token", "depth", "query"} if items else {"format", "item_base"}
    if wrong := sorted(chosen.keys() & foreign):
        raise OptionError(
            f"{flags(wrong)}: for pools of {'texts' if items else 'items (--items)'} only. Leave that out."
        )
    rejects = rejects or beside(output, ".rejects.jsonl")
    claim_outputs(output, rejects)
    check_outputs(rejects, None, [*files, *filter(None, [groups])], overwrite)
    check_replaceable(output, kind=POOL_FILE, replace=overwrite)
    tell_losses(output, POOL_FILE, overwrite=overwrite)
    unusable: list[RejectLine] = []
    build = _build_items if items else _build_texts
    try:
        with Bars() as bars:
            told = build(files, output, groups, unusable, bars, overwrite=overwrite, **chosen)
    except SpecBeamError as error:
        write_rejects(unusable, rejects, overwrite=overwrite)  # they may be why
        raise type(error)(
            f"{error} {len(unusable)} lines were rejected: see {rejects}." if unusable else f"{error}"
        ) from None
    write_rejects(unusable, rejects, overwrite=overwrite)
    click.echo(told)
    if unusable:
        click.echo(f"{len(unusable)} lines were rejected: see {rejects}")
    refuse_rejects(len(unusable), strict=strict_input)


def _build_texts(
    files: tuple[Path, ...], output: Path, groups: Path | None, unusable: "list[RejectLine]", bars: Bars, *,
    overwrite: bool, tokenizer: Path | None = None, end_token: str | None = None, **drafting: Any,
) -> str:  # fmt: skip
    from ..pools import TextDrafting
    from ..pools.groups.file import read_groups
    from ..pools.texts.build import build_text_pool
    from ..pools.texts.read import encode, read_texts
    from ..pools.texts.tokenizer import fingerprint, load, named_end_token, token_id, tokenizer_file

    if tokenizer is None:
        raise OptionError("a pool of texts needs the tokenizer of the bundle that it is for: --tokenizer BUNDLE.")
    file = tokenizer_file(tokenizer)
    loaded, end_token = load(file), end_token or named_end_token(file)
    lines = _counted(_usable(read_texts(files), unusable), bars, "texts")
    facts = build_text_pool(
        encode(lines, loaded, None if end_token is None else token_id(loaded, end_token)), output,
        tokenizer_sha256=fingerprint(file), reach=TextDrafting(**drafting).reach,
        groups=None if groups is None else read_groups(groups), overwrite=overwrite, progress=bars,
    )  # fmt: skip
    return _summary(facts, output, end_token)


def _build_items(
    files: tuple[Path, ...], output: Path, groups: Path | None, unusable: "list[RejectLine]", bars: Bars, *,
    overwrite: bool, format: str | None = None, item_base: int = 0,
) -> str:  # fmt: skip
    from ..catalog.histories.read import read_histories
    from ..pools.items.build import build_item_pool

    requests = _usable(read_histories(files, format=format, item_base=item_base), unusable)
    facts = build_item_pool(requests, output, groups=groups, overwrite=overwrite, progress=bars)
    named = f", {len(facts.groups)} groups" if facts.groups else ""
    return (
        f"Wrote {output}: {facts.histories} histories, {facts.interactions} purchases of {facts.items} items{named}\n"
        f"Next: specbeam infer BUNDLE HISTORIES --pool {output} --output recs.jsonl"
    )


def _usable(entries: "Iterable[T | Reject]", unusable: "list[RejectLine]") -> Iterator[T]:
    """The entries of files; lines that are none are put into `unusable`."""
    from ..catalog.records import Reject, RejectLine

    for entry in entries:
        if isinstance(entry, Reject):
            unusable.append(RejectLine.of(entry))
        else:
            yield entry


def _counted(entries: Iterable[T], bars: Bars, stage: str) -> Iterator[T]:
    for number, entry in enumerate(entries, 1):
        yield entry
        bars(stage, number, None)


def _summary(facts: "TextPoolFacts", output: Path, end_token: str | None) -> str:
    """What was written, in a few lines."""
    megabytes = sum(array.bytes for array in facts.arrays.values()) / 1e6
    lines = [f"Wrote {output}: {facts.all.texts} texts, {facts.all.tokens} tokens, {megabytes:.1f} MB"]
    groups = list(facts.groups.items())
    lines += [f"  group {name}: {own.texts} texts, {own.tokens} tokens" for name, own in groups[:SHOWN]]
    if len(groups) > SHOWN:
        lines.append(f"  and {len(groups) - SHOWN} more groups")
    alone = facts.all.texts - sum(own.texts for own in facts.groups.values())
    if facts.groups and alone:
        lines.append(f"{alone} texts are in no group, only in the pool of all")
    if end_token is None:
        lines.append("no end token is known: drafts will not say where a text ends (see --end-token)")
    return "\n".join(lines) + f"\nNext: specbeam generate BUNDLE PROMPTS.jsonl --pool {output} --output texts.jsonl"
