"""A bundle as a version of a model in Triton's repository."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from ...catalog.errors import OptionError, SpecBeamError
from ...catalog.files import whole_directory, whole_file
from ...engines.bundle.items import Bundle
from ..memory import device_of
from ..models import NAME
from .config import CONFIG, ENVIRONMENT, MARK, config_text
from .model import BUNDLE
from .recipe import MAKE, REQUIREMENTS, SCRIPT, requirements
from .settings import TritonSettings

POOL, MODEL = "pool", "model.py"
PROGRAM = '''\
"""A model of SpecBeam's, for Triton's Python backend. Written by specbeam package-triton."""

from functools import partial

import triton_python_backend_utils

try:
    from specbeam.serve.triton.model import TritonModel
except ModuleNotFoundError as error:
    told = "Make the model's environment, or make it anew: bash environment/make.sh SPECBEAM-WHEEL"
    raise ModuleNotFoundError(f"{error}. {told}") from None

TritonPythonModel = partial(TritonModel, triton_python_backend_utils)
'''
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Packaging:
    """What is packaged, and how it is to run there."""

    bundle: Path
    settings: TritonSettings
    pool: Path | None = None  # copied beside the bundle
    instances: int = 1


class Packaged(NamedTuple):
    """What was written."""

    folder: Path  # the model's
    version: str
    kept: tuple[Path, ...]  # files of the model that are not what would have been written


def package(
    packaging: Packaging, repository: Path, name: str, *, overwrite: bool = False,
    progress: Progress = lambda stage: None,
) -> Packaged:  # fmt: skip
    """Write a bundle as the next version of a model, whole or not at all; earlier versions stay as they are.

    overwrite: write config.pbtxt and the environment's recipe anew, too, where they are there already. Raises
    `SpecBeamError` where a folder of that name is not ours, `BundleError`, `PoolError` and `OptionError`.
    """
    if not NAME.fullmatch(name):
        raise OptionError(f"{name!r} cannot name a model; expected letters, digits, dots, - and _, 100 at most.")
    bundle = Bundle.open(packaging.bundle)
    settings = packaging.settings
    if packaging.pool is not None:
        settings = msgspec.structs.replace(settings, pool=str(packaging.pool.absolute()))
    engine = settings.opening(Path()).chosen(bundle).engine  # opens it all but the engine itself
    if packaging.pool is not None:
        settings = msgspec.structs.replace(settings, pool=POOL)
    kind = "KIND_GPU" if device_of(engine) == "cuda" else "KIND_CPU"
    files = {
        CONFIG: config_text(name, settings, instances=packaging.instances, kind=kind),
        f"{ENVIRONMENT}/{REQUIREMENTS}": requirements(bundle, engine),
        f"{ENVIRONMENT}/{SCRIPT}": MAKE,
    }
    folder = repository / name
    if not folder.exists():
        with whole_directory(folder, kind=CONFIG) as part:
            _write(files, part)
            _write_version(packaging, part / "1", progress)
        return Packaged(folder, "1", ())
    return _added(packaging, files, folder, overwrite, progress)


def _added(
    packaging: Packaging, files: dict[str, str], folder: Path, overwrite: bool, progress: Progress
) -> Packaged:  # fmt: skip
    config = folder / CONFIG
    if not config.is_file() or MARK not in config.read_text(errors="replace"):
        raise SpecBeamError(
            f"{folder} holds no {CONFIG} with SpecBeam's parameter, so SpecBeam did not write it. Choose another "
            "--name."
        )
    versions = [int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()]
    version = str(max(versions, default=0) + 1)
    with whole_directory(folder / version, kind=MODEL) as part:
        _write_version(packaging, part, progress)
        other = [name for name, text in files.items() if _text(folder / name) != text]
        kept = [name for name in other if (folder / name).exists() and not overwrite]
        for name in set(other) - set(kept):
            with whole_file(folder / name, replace=True) as file:
                file.write(files[name].encode())
    return Packaged(folder, version, tuple(folder / name for name in kept))


def _text(path: Path) -> str | None:
    return path.read_text(errors="replace") if path.is_file() else None


def _write(files: dict[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def _write_version(packaging: Packaging, folder: Path, progress: Progress) -> None:
    folder.mkdir(exist_ok=True)
    progress("copying the bundle")
    shutil.copytree(packaging.bundle, folder / BUNDLE)
    if packaging.pool is not None:
        progress("copying the pool")
        shutil.copytree(packaging.pool, folder / POOL)
    (folder / MODEL).write_text(PROGRAM)
