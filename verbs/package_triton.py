"""A bundle for Triton Inference Server: package-triton."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import PathType, bundle_argument, given
from .output import Stages
from .serve import opening_options, request_limit_options, unknown_items_option
from .values import collected

if TYPE_CHECKING:
    from ..serve.triton.settings import TritonSettings

OVERWRITE_HELP = (
    "Write config.pbtxt and the environment's recipe anew, too, where the model is there already. Versions stay."
)


def _settings(
    engine: str | None, threads: int | None, batch_size: int, memory: int | None, policy: Any, wait_ms: float | None,
    queue: int | None, mode: Any, scoring: Any, drafter: Any, speculation: Any, draft_width: int | None,
    draft_length: int | None, unknown_items: Any, max_items: int | None, max_k: int | None, max_entries: int | None,
    timeout_ms: int | None,
) -> "TritonSettings":  # fmt: skip
    from ..serve.triton.settings import TritonSettings

    limits = {"max_items": max_items, "max_k": max_k, "max_entries": max_entries, "timeout_ms": timeout_ms}
    return TritonSettings(
        engine=engine, threads=threads, batch_size=batch_size, memory=memory, policy=policy, wait_ms=wait_ms,
        queue=queue, mode=mode, scoring=scoring, drafter=drafter, speculation=speculation, draft_width=draft_width,
        draft_length=draft_length, unknown_items=unknown_items, **given(limits),
    )  # fmt: skip


@click.command("package-triton")
@bundle_argument
@click.option("--output", "-o", "repository", required=True, type=PathType, help="Triton's model repository.")
@click.option("--name", help="The model's. Default: the bundle's folder.")
@click.option("--instances", type=click.IntRange(1), default=1, show_default=True, help="Processes that serve it.")
@opening_options
@request_limit_options
@unknown_items_option
@click.option("--overwrite", is_flag=True, help=OVERWRITE_HELP)
@collected("settings", _settings)
def package_triton(
    bundle: Path, repository: Path, name: str | None, instances: int, settings: "TritonSettings", pool: Path | None,
    overwrite: bool,
) -> None:  # fmt: skip
    """Write a bundle as a model for Triton Inference Server's Python backend.

    The model repository gets a folder NAME with config.pbtxt, the bundle as the model's next version, and a recipe for
    the environment that it runs in (environment/make.sh), so that the server's own packages do not matter. A
    config.pbtxt or a recipe that is there already is kept, unless --overwrite is given; versions are never touched.
    See docs/embedding.md for what requests look like.

    \b
    Examples:
      specbeam package-triton bundle --output repository
      specbeam package-triton bundle -o repository --name shop --policy in-flight --batch-size 16
    """
    from ..serve.triton.config import ENVIRONMENT, MADE
    from ..serve.triton.recipe import SCRIPT
    from ..serve.triton.repository import Packaging, package

    packaging = Packaging(bundle, settings, pool, instances)
    name = bundle.resolve().name if name is None else name
    done = package(packaging, repository, name, overwrite=overwrite, progress=Stages())
    for kept in done.kept:
        click.echo(f"{kept} is kept, and is not what these options make; --overwrite writes it anew.", err=True)
    environment = done.folder / ENVIRONMENT
    make = f"bash {environment / SCRIPT} SPECBEAM-WHEEL"
    load = f"curl -X POST http://127.0.0.1:8000/v2/repository/models/{name}/load"
    click.echo(
        f"Wrote version {done.version} of {name}: {done.folder / done.version}. Next, where the server runs: "
        f"{load if (environment / MADE).exists() else make}"
    )
