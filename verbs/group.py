"""Groups of users and items, for retrieval pools: group-users, group-items."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..catalog.errors import HistoryError, OptionError
from .options import PathType, format_options, given, histories_argument, strict_option, together
from .output import Stages, claim_outputs, refuse_rejects, write_rejects
from .values import HistoryFiles, Writing, collected, histories_value, writing_value

if TYPE_CHECKING:
    from ..catalog.histories.requests import HistoryRequest
    from ..catalog.records import Reject, RejectLine
    from ..pools.groups.users import Grouping

USER_METHODS = click.Choice(["svd", "lightgcn", "random"])
USER_METHOD_HELP = (
    "svd: k-means on singular vectors of the interaction matrix. lightgcn: these, propagated over the graph "
    "as LightGCN does (not trained). random: the control."
)
ITEM_METHODS = click.Choice(["category", "title", "random"])
ITEM_METHOD_HELP = "title: k-means on singular vectors of the titles' words. random: the control."
PREFIX_HELP = "Put before every id, as the ids of the texts have it, such as beauty-u."
OPTIONS_OF = {  # each method of group-items
    "category": {"level", "min_size"},
    "title": {"groups", "dimension", "seed"},
    "random": {"groups", "seed"},
}

output_options = together(
    click.option("--output", "-o", required=True, type=PathType, help="A JSON object: id to name of its group."),
    click.option("--prefix", default="", metavar="TEXT", help=PREFIX_HELP),
    click.option("--overwrite", is_flag=True, help="Replace an existing output."),
)


@dataclass(frozen=True)
class UserGroups:
    """How users are grouped."""

    groups: int
    method: Any
    dimension: int
    seed: int


@click.command("group-users")
@histories_argument
@click.option("--groups", default=3, show_default=True, type=click.IntRange(2), help="How many.")
@click.option("--method", default="svd", show_default=True, type=USER_METHODS, help=USER_METHOD_HELP)
@click.option("--dimension", default=32, show_default=True, type=click.IntRange(1), help="Singular vectors used.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1))
@format_options
@click.option("--rejects", type=PathType, help="Where unusable lines go. Default: OUTPUT.rejects.jsonl.")
@strict_option
@output_options
@histories_value
@writing_value
@collected("wanted", UserGroups)
def group_users(files: HistoryFiles, writing: Writing, prefix: str, wanted: UserGroups) -> None:
    """Group users by what their histories have in common, for `specbeam build-pool --groups`.

    A line of HISTORIES is such as {"user": "u1", "items": ["11", "4"]}; several lines of a user count together.
    Groups are named 0, 1, ... from the largest. A user who is in no group is served by the pool of all.

    \b
    Examples:
      specbeam group-users histories.jsonl --output groups.json
      specbeam group-users sequential_train.txt --item-base 1 --groups 5 --prefix beauty-u -o groups.json
      specbeam group-users histories.jsonl --method random -o control.json
    """
    from ..pools.groups.users import group_users as group
    from ..runtime.runs.inference import beside, check_outputs

    output, overwrite = writing.output, writing.overwrite
    rejects = writing.rejects or beside(output, ".rejects.jsonl")
    claim_outputs(output, rejects)
    check_outputs(output, rejects, files.here(), overwrite)
    unusable: list[RejectLine] = []
    requests = _requests(files.entries(), unusable)
    try:
        grouping = group(requests, progress=Stages(), **vars(wanted))
    except HistoryError:
        write_rejects(unusable, rejects, overwrite=overwrite)  # they may be why
        raise
    write_rejects(unusable, rejects, overwrite=overwrite)
    click.echo(_written(grouping, output, prefix, "users", overwrite))
    if unusable:
        click.echo(f"{len(unusable)} lines were rejected: see {rejects}")
    refuse_rejects(len(unusable), strict=writing.strict_input)


@click.command("group-items")
@click.argument("items", type=PathType)
@click.option("--method", default="category", show_default=True, type=ITEM_METHODS, help=ITEM_METHOD_HELP)
@click.option("--level", type=click.IntRange(0), help="category: how far below the root. Default: 1.")
@click.option("--min-size", type=click.IntRange(1), help='category: smaller ones become "other". Default: 20.')
@click.option("--groups", type=click.IntRange(2), help="title, random: how many. Default: 6.")
@click.option("--dimension", type=click.IntRange(1), help="title: singular vectors used. Default: 32.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="title, random. Default: 0.")
@output_options
def group_items(items: Path, method: str, output: Path, prefix: str, overwrite: bool, **options: Any) -> None:
    """Group items by category, by the words of their titles, or at random, for `specbeam build-pool --groups`.

    ITEMS is an items.json, such as {"0": {"title": "Desk lamp", "categories": ["Home", "Lighting", "Lamps"]}, ...}.
    An item in no group (without categories, or without a title) is served by the pool of all.

    \b
    Examples:
      specbeam group-items items.json --output groups.json
      specbeam group-items items.json --level 2 --min-size 100 --prefix beauty-i -o groups.json
      specbeam group-items items.json --method title --groups 8 -o groups.json
    """
    from ..pools.groups.items import group_at_random, group_by_category, group_by_title, read_items
    from ..runtime.runs.inference import check_outputs

    chosen = given(options)
    if foreign := sorted(chosen.keys() - OPTIONS_OF[method]):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
        raise OptionError(f"{names} cannot be combined with --method {method}. Leave out one of them.")
    claim_outputs(output)
    check_outputs(output, None, [items], overwrite)
    described = read_items(items)
    if method == "category":
        grouping = group_by_category(described, **chosen)
    elif method == "title":
        grouping = group_by_title(described, progress=Stages(), **chosen)
    else:
        grouping = group_at_random(described, **chosen)
    click.echo(_written(grouping, output, prefix, "items", overwrite))
    if missing := len(described) - len(grouping.groups):
        click.echo(f"{missing} items are in no group: they have no {'title' if method == 'title' else 'categories'}")


def _requests(entries: "Iterator[HistoryRequest | Reject]", unusable: "list[RejectLine]") -> "Iterator[HistoryRequest]":
    """The requests; lines that are none are put into `unusable`."""
    from ..catalog.records import Reject, RejectLine

    for entry in entries:
        if isinstance(entry, Reject):
            unusable.append(RejectLine.of(entry))
        else:
            yield entry


def _written(grouping: "Grouping", output: Path, prefix: str, what: str, overwrite: bool) -> str:
    """Write the groups; what to say of them."""
    from ..pools.groups.file import group_sizes, write_groups

    groups: Mapping[str, str] = {prefix + name: group for name, group in grouping.groups.items()}
    write_groups(output, groups, overwrite=overwrite)
    sizes = group_sizes(groups)
    lines = [f"Wrote {output}: {len(groups)} {what} in {len(sizes)} groups"]
    lines += [f"  {name}: {size} ({size / len(groups):.0%})" for name, size in sizes.items()]
    if grouping.silhouette is not None:
        lines.append(f"mean silhouette of a sample: {grouping.silhouette:.3f} (1: well apart, 0: overlapping)")
    return "\n".join(lines)
