"""What is usable here: the machine, the packages, the backends, and the engines of a bundle."""

import platform
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ... import __version__
from ...catalog.errors import SpecBeamError, said
from ...catalog.extras import declared, install
from ..bundle.default import default_engine
from ..bundle.model import ModelBundle
from ..bundle.open import open_bundle
from ..installed import PACKAGES
from ..machine.gpus import found_gpus, used_gpu
from ..machine.processors import Processors, available_threads, found_memory, found_processors
from ..registry import DEVICES
from .health import BundleHealth, EngineHealth, Extra, Health, Package, Usable
from .trial import Answer, tried, try_backend, try_engine

# Of NVIDIA's libraries, where pip has brought them.
CUDA = (
    "nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "nvidia-cublas",
    "nvidia-cublas-cu12",
)  # fmt: skip
LEFT_OUT = ("dev",)  # extras that nothing here runs on
Stage = Callable[[str], None]


def examine(path: Path | None, stage: Stage = lambda told: None) -> Health:
    """Look at everything, and try whatever can be tried. Raises nothing for what is missing, damaged or broken.

    stage: told what is done now; loading large engines takes its time.
    """
    stage("looking at the machine")
    processors, memory, gpus, extras = found_processors(), found_memory(), found_gpus(), _extras()
    backends = tuple(_backend(name, device, stage) for name, devices in DEVICES.items() for device in devices)
    bundle = None if path is None else _bundle(path, stage)
    runs = any(one.runs for one in backends if one.backend == "onnxruntime")
    return Health(
        specbeam=__version__, python=f"{platform.python_implementation()} {platform.python_version()}",
        system=platform.platform(), processors=processors, memory=memory, gpus=gpus, extras=extras,
        cuda_packages={name: found for name in CUDA if (found := installed(name)) is not None}, backends=backends,
        notes=tuple(_notes(processors)), bundle=bundle,
        healthy=runs if bundle is None else any(engine.runs for engine in bundle.engines),
    )  # fmt: skip


def installed(package: str) -> str | None:
    """The version of an installed package, by its metadata alone: nothing is imported."""
    try:
        return version(package) or "unknown"
    except PackageNotFoundError:
        return None
    except Exception as error:  # damaged metadata raises what parsing it raises
        return f"unknown ({said(error)})"


def _extras() -> tuple[Extra, ...]:
    try:
        wanted = declared()
    except PackageNotFoundError:  # a checkout that is not installed: `install` says how it would be
        return ()
    return tuple(_extra(name, wanted[name]) for name in wanted if name not in LEFT_OUT)


def _extra(name: str, wanted: list[str]) -> Extra:
    packages = tuple(map(_package, wanted))
    lacks = not all(package.fits for package in packages)
    return Extra(name=name, packages=packages, remedy=install(name) if lacks else None)


def _package(wanted: str) -> Package:
    """One that is asked for, or another that brings the same library."""
    name = re.split(r"[^\w.-]", wanted, maxsplit=1)[0]
    same = PACKAGES.get(name, (name,))
    for candidate in (name, *same):
        if (found := installed(candidate)) is not None:
            return Package(wanted=wanted, name=candidate, version=found, fits=_is_new_enough(found, wanted))
    return Package(wanted=wanted, name=name, version=None, fits=False)


def _is_new_enough(version: str, wanted: str) -> bool:
    least = re.search(r">=\s*([\d.]+)", wanted)
    return least is None or _release(version) >= _release(least[1])


def _release(version: str) -> tuple[int, ...]:
    """Of a version, to compare: 1.10 is later than 1.9."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, leading[0].split("."))) if leading else ()


def _backend(name: str, device: str, stage: Stage) -> Usable:
    stage(f"trying {name} on {device}")
    answer = tried(try_backend, name, device)
    return Usable(backend=name, device=device, runs=answer.fault is None, fault=answer.fault, offers=answer.found)


def _notes(processors: Processors) -> list[str]:
    notes = []
    if not _extras():
        notes.append(f"SpecBeam is not installed as a package, so what it asks for is not known. Run: {install('cpu')}")
    if all(installed(name) for name in PACKAGES["onnxruntime"]):
        notes.append(
            "onnxruntime and onnxruntime-gpu are both installed, into the same folder: the files of one have replaced "
            "the other's. Run: pip uninstall onnxruntime onnxruntime-gpu, and install the one that is wanted"
        )
    if processors.load is not None and processors.load > processors.usable + 0.5:
        notes.append(
            f"others compute here (load {processors.load:.1f} on {processors.usable} processors): everything takes "
            "longer, and engines measure too much latency. Build and tune when the machine is quiet"
        )
    return notes


def _bundle(path: Path, stage: Stage) -> BundleHealth:
    name = str(path)
    try:
        bundle = open_bundle(path)
        names = bundle.engine_names()
    except (SpecBeamError, OSError) as error:
        return BundleHealth(
            path=name, fault=said_by(error), default_engine=None, default_fault=None, engines=(), remedy=None
        )
    default = fault = None
    try:
        default = default_engine(bundle)
    except (SpecBeamError, OSError) as error:
        fault = said_by(error)
    return BundleHealth(
        path=name, fault=None, default_engine=default, default_fault=fault,
        engines=tuple(_engine(bundle, one, stage) for one in names),
        remedy=None if names else f"specbeam build-engine {path}",
    )  # fmt: skip


def _engine(bundle: ModelBundle, name: str, stage: Stage) -> EngineHealth:
    answer = Answer((), None)
    remedy: str | None = bundle.rebuild(name)
    try:
        facts = bundle.engine_facts(name)
        remedy = None if facts.built_elsewhere and used_gpu() is None else bundle.rebuild(name, facts)
        size = sum(file.bytes for file in facts.files.values())
        stage(f"trying the engine {name} ({size / 1e6:,.1f} MB)")
        answer = tried(try_engine, bundle.path, name, available_threads())
    except (SpecBeamError, OSError) as error:
        answer = Answer((), said_by(error))
    runs = answer.fault is None
    return EngineHealth(name=name, runs=runs, fault=answer.fault, remedy=None if runs else remedy)


def said_by(error: BaseException) -> str:
    """An error of ours as it is; another one, in a line."""
    return str(error) if isinstance(error, SpecBeamError) else said(error)
