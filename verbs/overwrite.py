"""What --overwrite throws away besides what it writes again, said before it begins."""

from fnmatch import fnmatch
from pathlib import Path

import click

SHOWN = 8  # things that a message names
CHECKPOINT = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.md", "events/*")
AGAIN = {  # by the file that tells what a folder is: the files in it that the same verb writes again
    "manifest.json": ("manifest.json", "catalog/*", "target/*", "draft/*", "tokenizer/*"),
    "engine.json": ("engine.json", "target/*", "draft/*", "*-ranges.json", "kernels-*.cache"),
    "pool.json": ("pool.json", "*.npy"),
    "training.json": CHECKPOINT,
    "alignment.json": CHECKPOINT,
    "parts.json": ("parts.json", "part-*.jsonl", "rejects-*.jsonl"),
    "bundle": ("shop/*", "target/*", "draft/*", "aligned/*", "bundle/*"),  # of a demo
}


def tell_losses(path: Path, kind: str, *, overwrite: bool) -> None:
    """Say on standard error what is in the folder that --overwrite replaces, and will not be in its successor.

    kind: as of `whole_directory`.
    """
    if not overwrite or not (path / kind).exists():
        return
    lost = losses(path, kind)
    if lost:
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        click.echo(f"--overwrite replaces {path}; lost with it: {', '.join(lost[:SHOWN])}{more}", err=True)


def tell_interrupted(output: Path, *, overwrite: bool) -> None:
    """Say on standard error that --overwrite begins an interrupted run anew."""
    from ..runtime.runs.log import JournalFiles, kept_requests

    if overwrite and (kept := kept_requests(output)):
        told = f"{kept} requests of a run that was interrupted"
        click.echo(f"--overwrite discards {JournalFiles.of(output).results}: {told}", err=True)


def losses(path: Path, kind: str) -> list[str]:
    """What is in a folder of some kind that is not written again: engines, tunings, and files of other people."""
    files = sorted(file.relative_to(path) for file in path.rglob("*") if not file.is_dir())
    lost = [file for file in files if not any(_matches(file, pattern) for pattern in AGAIN[kind])]
    own = [file for file in lost if not any(part.startswith(".") for part in file.parts)]  # others are temporary
    return list(dict.fromkeys(_named(file) for file in own if str(file) != "engines/default.json"))


def _matches(file: Path, pattern: str) -> bool:
    """As `fnmatch`, in which a * would pass from folder to folder; only one at the end of a path does."""
    return fnmatch(str(file), pattern) and ("/" in pattern or len(file.parts) == 1)


def _named(file: Path) -> str:
    """A file by what people know it as."""
    if file.name.startswith("tuning-"):
        return f"{' of '.join(['tuning', *file.parent.parts[-1:]])} ({file.stem.removeprefix('tuning-')})"
    if file.name.startswith("measured-"):
        return f"what was measured on {file.stem.removeprefix('measured-')}"
    return f"engine {file.parts[1]}" if file.parts[0] == "engines" and len(file.parts) > 2 else str(file)
