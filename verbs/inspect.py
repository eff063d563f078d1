"""What is in a bundle or a pool, and whether its files are as they were written: inspect."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import PathType

if TYPE_CHECKING:
    from ..engines.bundle.checklist import Checked, Checklist
    from ..engines.bundle.model import ModelBundle

CHECK_HELP = (
    "Whether TensorRT's parser imports the graphs that build-engine would give it: by its published table, which needs "
    "neither TensorRT nor a GPU, and by the parser itself where it is installed. Exit status 1: some version that is "
    "looked at does not, or the parser."
)

CHECKSUMS_HELP = (
    "Read every file and compare it with its hash; files that are missing, and files that are listed nowhere, are told "
    "of, too. Exit status 1: a file is damaged or missing."
)


LAYERS_HELP = (
    "With --engine: what TensorRT's compiler made of its graphs: fused attentions, matrix products, other kernels by "
    "element types, and which attentions were not fused; with --json every layer, too."
)


@click.command()
@click.argument("bundle", metavar="BUNDLE|POOL", type=PathType)
@click.option("--json", "as_json", is_flag=True, help="The manifest and the engines' facts, or the pool's, as JSON.")
@click.option("--checksums", is_flag=True, help=CHECKSUMS_HELP)
@click.option("--check", type=click.Choice(["tensorrt"]), help=CHECK_HELP)
@click.option("--engine", metavar="NAME", help="One engine alone, as `specbeam inspect` lists it.")
@click.option("--layers", is_flag=True, help=LAYERS_HELP)
def inspect(bundle: Path, as_json: bool, checksums: bool, check: str | None, engine: str | None, layers: bool) -> None:
    """Show what is in a bundle: models, catalog, prompt, engines and their latency; or in a pool.

    \b
    Examples:
      specbeam inspect bundle
      specbeam inspect bundle --json | python -m json.tool
      specbeam inspect bundle --checksums      # after it was copied: is all of it there, and as it was?
      specbeam inspect pool --checksums
      specbeam inspect bundle --check tensorrt
      specbeam inspect bundle --engine tensorrt-rtx-cuda-fp16 --layers
    """
    _check_alone({
        "--check": bool(check), "--checksums": checksums, "--engine": engine is not None,
        "--layers": layers and engine is None,
    })  # fmt: skip
    if check:
        _check_tensorrt(bundle, as_json)
        return
    if engine is not None or layers:
        click.echo(_of_engine(bundle, engine, as_json, layers))
        return
    checked = _checked(bundle) if checksums else None
    told = _json(bundle, checked) if as_json else _text(bundle, checked)
    click.echo(told.encode("utf-8", "backslashreplace"))  # names of files need not be text
    if checked is not None and checked.damaged:
        raise SystemExit(1)


def _check_alone(given: dict[str, bool]) -> None:
    """Each of these options tells of something else."""
    from ..catalog.errors import OptionError

    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise OptionError(f"got {' and '.join(names)}; expected one of them. Leave the other out.")


def _check_tensorrt(bundle: Path, as_json: bool) -> None:
    from ..calib.tensorrt import check_bundle

    importable, told = check_bundle(bundle, as_json=as_json)
    click.echo(told)
    if not importable:
        raise SystemExit(1)


def _of_engine(path: Path, name: str | None, as_json: bool, layers: bool) -> str:
    """One engine: its facts, or what was compiled of it."""
    from ..catalog.errors import OptionError
    from ..engines.bundle.inspect import describe_engine
    from ..engines.bundle.open import open_bundle
    from ..engines.bundle.sealed import to_json

    bundle = open_bundle(path)
    if name is None:
        built = ", ".join(bundle.engine_names()) or "none"
        raise OptionError(f"got --layers without --engine; expected the name of an engine, too (built: {built}).")
    if layers:
        from ..engines.tensorrt.compiled import compiled_engine

        compiled = compiled_engine(bundle, name)
        return to_json(compiled).decode().rstrip() if as_json else compiled.described()
    if as_json:
        return to_json(bundle.engine_facts(name)).decode().rstrip()
    return "\n".join([describe_engine(path, name), *_validity(bundle, name)])


def _validity(bundle: "ModelBundle", name: str) -> list[str]:
    """What the library that compiled an engine ahead of time says about its plans on this machine."""
    facts = bundle.engine_facts(name)
    plans = {role: each.tensorrt for role, each in facts.roles.items() if each.tensorrt is not None}
    if not facts.built_elsewhere:
        return []
    from ..catalog.bounds import leads_out
    from ..engines.tensorrt.just_in_time import told_validity
    from ..engines.tensorrt.layers import ENCODER_PLAN, PLAN

    folder = bundle.path / "engines" / name
    told = []
    files = [
        (role, named, plan)
        for role, plan in plans.items()
        for named in ([PLAN] if bundle.facts(role).encoder is None else [PLAN, ENCODER_PLAN])
    ]
    for role, named, plan in files:
        listed, file = facts.files.get(f"{role}/{named}"), folder / role / named
        if listed is None or leads_out(file, bundle.path) or not file.is_file() or file.stat().st_size != listed.bytes:
            found = f"{file} is missing or damaged. Write it again with: {bundle.rebuild(name, facts)}"
        else:
            found = told_validity(file, plan)
        whose = f"{role}'s encoder" if named == ENCODER_PLAN else role
        told.append(f"  {whose}: compiled for {', '.join(plan.compiled_for)}; {found}")
    return told


def _is_pool(path: Path) -> bool:
    from ..engines.bundle.model import MANIFEST
    from ..pools.files import POOL_FILE

    return (path / POOL_FILE).is_file() and not (path / MANIFEST).is_file()


def _checked(path: Path) -> "Checked":
    """Every file read, and a bar that shows how much, where that takes its time."""
    from tqdm import tqdm

    from ..engines.bundle.checklist import bundle_checklist
    from ..pools.inspect import pool_checklist

    checklist: Checklist = pool_checklist(path) if _is_pool(path) else bundle_checklist(path)
    with tqdm(
        total=checklist.bytes, desc="checking", unit="B", unit_scale=True, delay=2, file=sys.stderr, disable=None
    ) as bar:
        return checklist.run(bar.update)


def _text(path: Path, checked: "Checked | None") -> str:
    from ..engines.bundle.inspect import describe
    from ..pools.inspect import describe_pool

    if checked is None or checked.listed:
        told = describe_pool(path) if _is_pool(path) else describe(path)
        return told if checked is None else f"{told}\n{checked.described()}"
    return f"{path}: {checked.described()}"


def _json(path: Path, checked: "Checked | None") -> str:
    from ..engines.bundle.inspect import content
    from ..engines.bundle.sealed import to_json
    from ..pools.inspect import pool_content

    told: dict[str, object] = {}
    if checked is None or checked.listed:
        told = pool_content(path) if _is_pool(path) else content(path)
    if checked is not None:
        told["checksums"] = checked
    return to_json(told).decode().rstrip()
