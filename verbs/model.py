"""Models of a running server: model load, switch, unload, status."""

import click

from .admin import Admin, admin_option, change, json_option, tell, tell_status


@click.group()
def model() -> None:
    """Load, switch and unload the models of a running server; no request is lost, none sees two models.

    \b
    Examples:
      specbeam model load shop /srv/bundles/shop-june --admin admin.sock
      specbeam model switch shop 2 --admin admin.sock
      specbeam model unload shop/1 --admin admin.sock
    """


@model.command()
@click.argument("name")
@click.argument("bundle")
@click.option("--engine", help="Of the bundle's, by name. Default: as the server opens all models.")
@admin_option
@json_option
def load(name: str, bundle: str, engine: str | None, admin: str, as_json: bool) -> None:
    """Load BUNDLE, a path on the server's host, as the next version of the model NAME, warm, beside what serves.

    The first version of a name serves at once, later ones once they are switched to. Whether there is memory for it is
    seen before anything is loaded. Of the versions that do not serve, the last two are kept.

    \b
    Examples:
      specbeam model load shop /srv/bundles/shop-june --admin admin.sock
      specbeam model load books /srv/bundles/books --engine onnxruntime-cpu-int8 --admin admin.sock
    """
    from ..serve.http.admin_messages import Load

    change(admin, "/models/load", Load(model=name, bundle=bundle, engine=engine), as_json)


@model.command()
@click.argument("name")
@click.argument("version")
@admin_option
@json_option
def switch(name: str, version: str, admin: str, as_json: bool) -> None:
    """Serve the model NAME by another VERSION of it that is loaded; to go back, switch to the one before.

    \b
    Examples:
      specbeam model switch shop 2 --admin admin.sock
      specbeam model switch shop 1 --admin admin.sock      # back again
    """
    from ..serve.http.admin_messages import Switch

    change(admin, "/models/switch", Switch(model=name, version=version), as_json)


@model.command()
@click.argument("name", metavar="NAME[/VERSION]")
@click.option("--all", "every", is_flag=True, help="All versions: nothing answers for the model from then on.")
@admin_option
@json_option
def unload(name: str, every: bool, admin: str, as_json: bool) -> None:
    """Serve a version, or with --all a whole model, no more; what it has accepted is still answered, then its memory is
    free.

    Tells what is left.

    \b
    Examples:
      specbeam model unload shop/1 --admin admin.sock
      specbeam model unload books --all --admin admin.sock
    """
    from ..serve.http.admin_messages import Status, Unload

    wanted, slash, version = name.partition("/")
    if bool(slash) == every:
        raise click.UsageError(
            f"got {name}{' and --all' if every else ''}; expected a version, such as {wanted}/1, or --all for the "
            "whole model, which nothing answers for from then on."
        )
    left = Admin(admin).post("/models/unload", Unload(model=wanted, version=version if slash else None), Status)
    tell(left, as_json)


@model.command()
@admin_option
@json_option
def status(admin: str, as_json: bool) -> None:
    """Say which models are loaded; those marked * serve requests that name no version.

    \b
    Examples:
      specbeam model status --admin admin.sock
      specbeam model status --admin http://127.0.0.1:8001 --json
    """
    tell_status(admin, as_json)
