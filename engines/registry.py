"""Engines by name. A backend's library is imported when one of its engines is opened, not before."""

import os
from importlib.metadata import PackageNotFoundError, version

from ..catalog.errors import BundleError, EngineError
from .base import Engine
from .bundle import Bundle, Role

PACKAGES = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "torch": ("torch",)}


def available_threads() -> int:
    """Processors this process may run on: the default of every `threads`."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def backend_version(backend: str) -> str:
    """Version of the installed library behind a backend; raises `EngineError` where it is unknown or not installed."""
    if backend not in PACKAGES:
        raise EngineError(f"There is no backend {backend!r}; expected one of: {', '.join(PACKAGES)}.")
    for package in PACKAGES[backend]:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    extra = {"onnxruntime": "cpu", "torch": "export"}[backend]
    raise EngineError(f"The {backend} backend is not installed. Run: pip install 'specrec[{extra}]'")


def default_engine(bundle: Bundle) -> str:
    """The engine to use when none is named: the only one built."""
    built = bundle.engine_names()
    if len(built) == 1:
        return built[0]
    if built:
        raise BundleError(f"{bundle.path} has several engines: {', '.join(built)}. Choose one with --engine NAME.")
    raise BundleError(f"{bundle.path} has no engine yet. Build one with: specrec build-engine {bundle.path}")


def load_engine(bundle: Bundle, role: Role, name: str, *, threads: int) -> Engine:
    """Open one engine of a bundle by name: `<backend>-<device>-<precision>`.

    Engines of the torch backend need no building: the bundle's checkpoint is their graph. Raises
    `BundleError` or `EngineError`, saying what to run, where the engine is absent, damaged, or was built
    by another version.
    """
    backend, _, rest = name.partition("-")
    device, _, precision = rest.partition("-")
    facts = bundle.facts(role)
    if backend == "torch":
        return _load_torch(bundle, role, name, device, precision, threads)
    engine = bundle.engine_facts(name)
    built, here = engine.versions.get(engine.backend, "an unknown version"), backend_version(engine.backend)
    if built.split(".")[:2] != here.split(".")[:2]:
        raise BundleError(
            f"Engine {name} of {bundle.path} was built by {engine.backend} {built}, installed is {here}. "
            f"Run: {bundle.rebuild(name)}"
        )
    if role not in engine.roles:
        raise BundleError(f"Engine {name} of {bundle.path} has no {role}. Run: {bundle.rebuild(name)}")
    if engine.roles[role].source_sha256 != bundle.graph_sha256(role):
        raise BundleError(
            f"Engine {name} of {bundle.path} was built from another {role} than the bundle's. "
            f"Run: {bundle.rebuild(name)}"
        )
    from .ort import load_ort_engine

    graph = bundle.engine_file(name, f"{role}/model.onnx")
    return load_ort_engine(graph, facts, device=engine.device, precision=engine.precision, threads=threads)


def _load_torch(bundle: Bundle, role: Role, name: str, device: str, precision: str, threads: int) -> Engine:
    if device not in ("cpu", "cuda") or precision not in ("fp32", "fp16", "bf16"):
        raise BundleError(f"No engine {name!r}: expected torch-<cpu|cuda>-<fp32|fp16|bf16>.")
    backend_version("torch")
    from .torch import load_torch_engine

    checkpoint = bundle.folder(f"{role}/checkpoint")
    return load_torch_engine(checkpoint, bundle.trie().vocabulary, device=device, precision=precision, threads=threads)
