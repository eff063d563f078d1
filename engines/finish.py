"""build-engine --finish: an engine that was built without a GPU, compared and timed on this machine's."""

import hashlib
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import get_args

from msgspec.structs import replace

from ..catalog import checks
from ..catalog.errors import EngineError, RefusedError
from ..catalog.files import whole_file
from ..catalog.temporaries import temporary_directory
from .backend import Progress
from .build import Order, measure
from .bundle.facts import EngineFacts, FileFacts, Role
from .bundle.measured import MEASURED_SCHEMA, Measured, Measurement, kernels_file, measured_file, slug
from .bundle.model import ModelBundle
from .bundle.open import open_bundle
from .bundle.sealed import sealed
from .latency import TIMING_SECONDS
from .machine.gpus import found_gpus, used_gpu
from .registry import check_source, chosen_threads, find_backend


def finish_engine(
    bundle: str | Path | ModelBundle,
    name: str,
    *,
    threads: int | None = None,
    timing_seconds: float = TIMING_SECONDS,
    progress: Progress = lambda what, done, total: None,
) -> Path:
    """Compare an engine that was built ahead of time with the exported graph, and time its calls, on this GPU.

    What was found, and the kernels that were compiled, are kept beside it for this kind of GPU, in place of what was
    measured before; returns that file. Raises `RefusedError` where the engine differs from the exported graph by too
    much, which is kept, too: it is not opened on such a GPU any more; `EngineError` where it cannot run here, or was
    measured when it was built: nothing is written then.
    """
    bundle = bundle if isinstance(bundle, ModelBundle) else open_bundle(bundle)
    facts = bundle.built_facts(name)
    backend = find_backend(facts.backend, facts.device)
    if backend.runs_here:
        raise EngineError(
            f"{name} was compared and timed when it was built: there is nothing to finish. To do it again: "
            f"{bundle.rebuild(name, facts)}"
        )
    folder = bundle.path / "engines" / name
    order = Order(
        bundle, backend, {r: each.precision for r, each in facts.roles.items()}, chosen_threads(threads),
        checks.seconds(timing_seconds, "timing_seconds"),
    )  # fmt: skip
    for role in facts.roles:
        bundle.engine_folder(name, role)  # raises where a file is not as it was written
        check_source(bundle, role, name, facts)
    gpu, capability = _gpu()
    found, kernels = dict[Role, Measurement](), dict[Role, bytes | None]()
    about = partial(
        Measured, schema_version=MEASURED_SCHEMA, engine=facts.checksum, gpu=gpu, compute_capability=capability,
        driver=found_gpus().driver, versions=order.backend.versions(), files={},
    )  # fmt: skip
    with temporary_directory(folder / "measured") as scratch:
        for role in (role for role in get_args(Role) if role in facts.roles):
            try:
                found[role] = measure(
                    order, role, folder / role, facts.roles[role], scratch, progress,
                    keep=lambda engine, role=role: kernels.update({role: engine.kernels()}),  # type: ignore[misc]
                    rebuild=bundle.rebuild(name, facts),
                )  # fmt: skip
            except RefusedError as error:  # from now on it is not opened on such a GPU
                _write(folder, about(roles={}, fault=str(error)), {})
                raise
    return _write(folder, about(roles=found), {role: data for role, data in kernels.items() if data})


def measured_facts(
    bundle: ModelBundle, name: str, *, threads: int | None, progress: Progress = lambda what, done, total: None
) -> EngineFacts:
    """What an engine is; one that was built without a GPU, and not finished on this machine's, is finished first."""
    if not bundle.engine_facts(name).measured:
        finish_engine(bundle, name, threads=threads, progress=progress)
    return bundle.engine_facts(name)


def _gpu() -> tuple[str, str]:
    """This machine's GPU: what the driver calls it, and its compute capability. Raises `EngineError` without one."""
    from .cuda import Device

    with closing(Device()) as device:
        capability = device.compute_capability()
    told = used_gpu()
    return (f"GPU of compute capability {capability}" if told is None else told.name), capability


def _write(folder: Path, measured: Measured, kernels: Mapping[Role, bytes]) -> Path:
    """Put the kernels, and then the file that lists them, into an engine's folder."""
    path = measured_file(folder, measured.gpu)
    files = {}
    for role, data in kernels.items():
        digest = hashlib.sha256(data).hexdigest()
        compiled = kernels_file(folder, measured.gpu, role, digest)
        with whole_file(compiled, replace=True) as file:
            file.write(data)
        files[compiled.name] = FileFacts(sha256=digest, bytes=len(data))
    with whole_file(path, replace=True) as file:
        file.write(sealed(replace(measured, files=files)))
    for former in folder.glob(f"kernels-{slug(measured.gpu)}-*-*.cache"):
        if former.name not in files:
            former.unlink()
    return path
