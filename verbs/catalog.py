"""Catalogs of a running server: catalog update, rollback, status."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from .admin import Refused, admin_option, change, json_option, tell_status
from .options import PathType, together

if TYPE_CHECKING:
    from ..catalog.updates import CatalogUpdate

INDEX_HELP = "The whole new catalog, as for export: item ids to identifiers."
ITEMS_HELP = "With --index: item ids to titles."
ADD_HELP = 'New items, JSON lines such as {"item": "7", "identifier": ["<a_1>", "<b_4>"], "title": "Blue lamp"}.'
RETIRE_HELP = "Item ids that are served no more, one a line."
TITLES_HELP = 'Other titles, JSON lines such as {"item": "7", "title": "Red lamp"}.'

which_options = together(
    click.option("--model", help="Default: the server's first."),
    click.option("--version", help="Of the model. Default: the one that serves."),
)


@click.group()
def catalog() -> None:
    """Change the catalog of a running server; no request is lost, none sees two catalogs.

    \b
    Examples:
      specbeam catalog update --admin admin.sock --add new.jsonl --retire gone.txt
      specbeam catalog rollback --admin admin.sock
    """


@catalog.command()
@click.option("--index", type=PathType, help=INDEX_HELP)
@click.option("--items", type=PathType, help=ITEMS_HELP)
@click.option("--add", type=PathType, help=ADD_HELP)
@click.option("--retire", type=PathType, help=RETIRE_HELP)
@click.option("--titles", type=PathType, help=TITLES_HELP)
@admin_option
@which_options
@json_option
def update(
    index: Path | None, items: Path | None, add: Path | None, retire: Path | None, titles: Path | None, admin: str,
    model: str | None, version: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Serve a new catalog, compiled beside the one that serves and put in its place between batches.

    Either the whole of it, or what has changed: items are retired first, then added behind the others, then given
    titles; an item whose identifier changes is retired and added. New items must be of tokens that the model knows: if
    any is not, nothing is changed, and all such items are written to standard output, a JSON line each. The last two
    catalogs are kept to go back to, as long as the server runs; the bundle stays as it is.

    \b
    Examples:
      specbeam catalog update --admin admin.sock --add new.jsonl --retire gone.txt
      specbeam catalog update --admin admin.sock --index index.json --items items.json --model shop
    """
    from ..serve.http.admin_messages import Update

    content = Update(model=model, version=version, update=_update(index, items, add, retire, titles))
    try:
        change(admin, "/catalog/update", content, as_json)
    except Refused as refused:
        for item, tokens in refused.items:
            click.echo(msgspec.json.encode({"item": item, "tokens": tokens}))
        raise


@catalog.command()
@admin_option
@which_options
@json_option
def rollback(admin: str, model: str | None, version: str | None, as_json: bool) -> None:
    """Serve the catalog before this one again; this one is forgotten.

    \b
    Examples:
      specbeam catalog rollback --admin admin.sock
      specbeam catalog rollback --admin http://127.0.0.1:8001 --model shop
    """
    from ..serve.http.admin_messages import Which

    change(admin, "/catalog/rollback", Which(model=model, version=version), as_json)


@catalog.command()
@admin_option
@json_option
def status(admin: str, as_json: bool) -> None:
    """Say which catalogs are served, and which are kept.

    \b
    Examples:
      specbeam catalog status --admin admin.sock
      SPECBEAM_ADMIN=admin.sock specbeam catalog status --json
    """
    tell_status(admin, as_json)


def _update(
    index: Path | None, items: Path | None, add: Path | None, retire: Path | None, titles: Path | None
) -> "CatalogUpdate":
    from ..catalog.errors import OptionError
    from ..catalog.items import Catalog
    from ..catalog.updates import CatalogUpdate
    from ..runtime.runs.item_lists import read_ids

    if items is not None and index is None:
        raise OptionError("--items: with --index only. New titles of single items go into --titles.")
    if index is None:
        if not (add or retire or titles):
            raise OptionError("nothing is to be changed. Give --index, or any of --add, --retire and --titles.")
        return CatalogUpdate.read(add, () if retire is None else tuple(read_ids(retire)), titles)
    if add or retire or titles:
        raise OptionError("--index is the whole catalog. Leave --add, --retire and --titles out, or --index.")
    return CatalogUpdate.replacing(Catalog.load(index, items))
