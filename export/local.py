"""A checkpoint as callers name it, a folder or a model of a hub, on this machine."""

from os import PathLike, fspath
from pathlib import Path

from ..catalog import checks
from ..engines.checkpoint_guard import CONFIG
from .adapter import base_of
from .checkpoint import load_config
from .hub import ADAPTER, Bar, fetch, unseen
from .hub_names import hub_name
from .model import Progress

Named = str | PathLike[str]  # a checkpoint: a folder, or org/name[@revision] of a hub


def local(
    given: Named, name: str, *, weights: bool = True, progress: Progress = lambda stage: None, bar: Bar = unseen
) -> Path:
    """The folder of a checkpoint; one that is there is taken before a hub is asked.

    An adapter's base model is fetched with it. name: the argument's, for errors; weights: whether they are wanted;
    `progress` is told what is fetched, `bar` shows how much. A model that export refuses is refused before its weights
    are fetched. Raises `OptionError` for what is no path, and else as `fetch` does.
    """
    folder = checks.path(given, name)
    if not _is_there(folder):
        found = hub_name(fspath(given))
        progress(f"fetching {found}")
        folder = fetch(found, check=_check, weights=weights, bar=bar)
    if weights and (folder / ADAPTER).is_file():
        base_of(folder, check=_check, bar=bar, told=progress)
    return folder


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that cannot be
        return False


def _check(folder: Path) -> None:
    load_config(folder / CONFIG)
