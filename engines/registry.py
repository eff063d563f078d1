"""Engines by name. A backend's library is imported when one of its engines is opened, not before."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..catalog import checks
from ..catalog.errors import BundleError, EngineError, SpecBeamError, is_fault, said
from ..catalog.extras import EXTRAS, install_module
from .backend import Backend
from .base import Engine
from .bundle.default import default_engine, found_default
from .bundle.facts import EngineFacts, Role, Scoring
from .bundle.measured import refused_here
from .bundle.model import ModelBundle
from .bundle.names import EngineName
from .installed import backend_version, installed_package
from .machine.processors import available_threads

DEVICES = {
    "onnxruntime": ("cpu", "cuda"),
    "tensorrt": ("cuda",),
    "tensorrt-rtx": ("cuda",),
}  # of backends that engines are built for


def chosen_threads(threads: int | None) -> int:
    """Threads of an engine, as asked for or by default."""
    return available_threads() if threads is None else checks.whole_number(threads, "threads", 1, checks.MOST_THREADS)


def chosen_engine(bundle: ModelBundle, name: str | None, device: str | None = None) -> str:
    """The name of an engine, as asked for or by default; device: that it must run on (None: any).

    Raises `BundleError` where it is not known which engine is meant, or none is on the device.
    """
    if device is None:
        return default_engine(bundle) if name is None else checks.text(name, "engine").replace("\0", "?")
    if name is None and (usual := found_default(bundle)) is not None and _device(usual) == device:
        return usual
    built = bundle.engine_names()
    if not (name or built):
        return default_engine(bundle)  # says how to build one
    there = [one for one in ([name] if name else built) if _device(one) == device]
    if len(there) != 1:
        found = f"{name} is not" if name else f"{len(there) or 'none'} of its engines ({', '.join(built)}) are"
        raise BundleError(
            f"{bundle.path}: {found} on the device {device!r}; expected one that is. Leave the device out, or name an "
            "engine on it, as `specbeam inspect` lists them."
        )
    return there[0]


def _device(name: str) -> str:
    return EngineName.of(name).device


def load_engine(
    bundle: ModelBundle, role: Role, name: str, *, threads: int, scoring: Scoring = "full", thrifty: bool = False
) -> Engine:
    """Open one engine of a bundle by name: `<backend>-<device>-<precision>`.

    scoring: what it is for; one for "full" serves both, one for "constrained" may know the catalog's columns alone.
    thrifty: see `Backend.load`.
    Engines of the torch backend need no building: the bundle's checkpoint is their graph. Raises
    `BundleError` or `EngineError`, saying what to run, where the engine is absent, damaged, or was built
    by another version.
    """
    bundle.facts(role)  # raises where there is no such model
    if EngineName.of(name).backend == "torch":
        return _load_torch(bundle, role, name, threads)
    engine = bundle.engine_facts(name)
    backend = find_backend(engine.backend, engine.device)
    built, here = engine.versions.get(engine.backend, "an unknown version"), backend_version(engine.backend)
    if engine.backend == "onnxruntime" and built.split(".")[:2] != here.split(".")[:2]:  # a plan tells by itself
        raise BundleError(
            f"Engine {name} of {bundle.path} was built by {engine.backend} {built}, installed is {here}. "
            f"Run: {bundle.rebuild(name, engine)}"
        )
    if role not in engine.roles:
        raise BundleError(f"Engine {name} of {bundle.path} has no {role}. Run: {bundle.rebuild(name, engine)}")
    check_source(bundle, role, name, engine)
    if engine.built_elsewhere and (fault := refused_here(bundle.path / "engines" / name, bundle.built_facts(name))):
        raise EngineError(
            f"{name} was refused when it was finished on this GPU: {fault} To try that again: {bundle.finishing(name)}"
        )
    folder = bundle.engine_folder(name, role)
    catalog_head = scoring == "constrained" and engine.has_catalog_head(role)
    return backend.load(
        bundle, role, folder, engine.roles[role], threads, bundle.rebuild(name, engine), catalog_head=catalog_head,
        thrifty=thrifty,
    )  # fmt: skip


def check_source(bundle: ModelBundle, role: Role, name: str, engine: EngineFacts) -> None:
    """Raise `BundleError` where an engine was built from another graph than the bundle's."""
    if engine.roles[role].source_sha256 != bundle.graph_sha256(role):
        raise BundleError(
            f"Engine {name} of {bundle.path} was built from another {role} than the bundle's. "
            f"Run: {bundle.rebuild(name, engine)}"
        )


def name_and_precision(bundle: ModelBundle, role: Role, name: str) -> str:
    """How errors name one of an engine's graphs."""
    precision = (
        EngineName.of(name).precision if name.startswith("torch-") else bundle.engine_facts(name).roles[role].precision
    )
    return f"{name} ({precision})"


def find_backend(name: str, device: str | None = None, **options: Any) -> Backend:
    """A backend by name; device: default its first. options: those of its class.

    Raises `EngineError` for a name or a device that is not known, and where the backend is not installed.
    """
    if not isinstance(name, str) or name not in DEVICES:
        raise EngineError(f"There is no backend {name!r}; expected one of: {', '.join(DEVICES)}.")
    device = DEVICES[name][0] if device is None else device
    if not isinstance(device, str) or device not in DEVICES[name]:
        raise EngineError(f"The {name} backend runs on {' or '.join(DEVICES[name])}; got the device {device!r}.")
    backend_version(name)
    if name != "onnxruntime":
        from .tensorrt.backend import TensorRTBackend
        from .tensorrt.flavour import FLAVOURS

        return TensorRTBackend(device, flavour=FLAVOURS[name], **options)
    with whole_library(name):
        from .onnxruntime.backend import OrtBackend

    return OrtBackend(device, **options)


@contextmanager
def whole_library(backend: str) -> Iterator[None]:
    """Raise `EngineError` where the library behind a backend cannot be imported, be it absent or broken."""
    try:
        yield
    except BaseException as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS else None
        if absent == backend:
            raise EngineError(f"{backend} is not installed. Run: {install_module(backend)}") from error
        if absent or isinstance(error, SpecBeamError) or not is_fault(error):
            raise
        package, installed = installed_package(backend)
        raise EngineError(
            f"{package} {installed} is installed, but cannot be used: {said(error)}. Install it again: pip install "
            f"--force-reinstall {package}"
        ) from error


def _load_torch(bundle: ModelBundle, role: Role, name: str, threads: int) -> Engine:
    _, device, precision, _ = EngineName.of(name)
    if device not in ("cpu", "cuda") or precision not in ("fp32", "fp16", "bf16"):
        raise BundleError(f"No engine {name!r}: expected torch-<cpu|cuda>-<fp32|fp16|bf16>.")
    backend_version("torch")
    with whole_library("torch"):
        from .torch_encoder_decoder import load_torch_engine

    checkpoint = bundle.folder(f"{role}/checkpoint")
    return load_torch_engine(checkpoint, bundle.vocabulary(), device=device, precision=precision, threads=threads)
