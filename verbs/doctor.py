"""What of this machine, and of a bundle, can be used: doctor."""

from pathlib import Path

import click

from .options import PathType
from .output import Stages, results_alone


@click.command()
@click.argument("bundle", required=False, type=PathType)
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
def doctor(bundle: Path | None, as_json: bool) -> None:
    """Show what can be used here, and what to install for the rest: processors and the instructions that they have,
    memory, GPUs and CUDA, the backends, and the packages.

    With a BUNDLE: which of its engines run here. Each is opened and asked for two small calls, in a process of its own;
    for one that does not run, it is said why, and how to make it again. Files that engines do not need are not looked
    at: that is `specbeam inspect BUNDLE --checksums`. Where an engine runs, also how to serve it on this machine, by
    the times of its calls: threads, processes, batch, and what to expect.

    \b
    Exit status:
      0  at least one engine of the bundle runs here; without a bundle: ONNX Runtime does
      1  none does, or the bundle cannot be opened

    \b
    Examples:
      specbeam doctor
      specbeam doctor bundle
      specbeam doctor bundle --json | python -m json.tool
    """
    from msgspec.structs import replace

    from ..engines.bundle.sealed import to_json
    from ..engines.doctor.examine import examine
    from ..engines.doctor.health import describe
    from ..serve.sizing import proposed

    with results_alone() as results:
        health = examine(bundle, Stages())
        health = replace(health, serving=proposed(health))
        results.write(to_json(health) if as_json else f"{describe(health)}\n".encode("utf-8", "backslashreplace"))
    if not health.healthy:
        raise SystemExit(1)
