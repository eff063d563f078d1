"""What was measured on a machine's GPU of an engine that was built without one: measured-<gpu>.json in its folder."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec.structs import replace

from ...catalog.bounds import Number, check_names, leads_out
from ...catalog.errors import BundleError
from ...catalog.files import Frozen
from ..machine.gpus import used_gpu
from .checksums import check_file
from .facts import EngineFacts, FileFacts, LatencyPoint, Role
from .sealed import Sealed, read_sealed

MEASURED_SCHEMA = 1


class Measurement(Frozen, frozen=True):
    """Of one graph; as in `RoleFacts`."""

    max_difference: Number
    latency: Annotated[tuple[LatencyPoint, ...], msgspec.Meta(min_length=1)]


class Measured(Sealed, frozen=True, kw_only=True):
    """One kind of GPU's file: machines of a fleet may have different ones, and share the engine."""

    engine: str  # the checksum of its engine.json
    gpu: str  # what the driver calls it
    compute_capability: str
    driver: str | None  # its version; None: not told
    versions: dict[str, str]
    roles: dict[Role, Measurement]  # none where it was refused
    fault: str | None = None  # why the engine was refused on this kind of GPU: it computes something else
    files: dict[str, FileFacts]  # in the engine's folder: kernels that were compiled for this GPU

    def __post_init__(self) -> None:
        check_names(self.files)
        if bool(self.roles) == (self.fault is not None):
            raise ValueError("it says both that the engine was measured and that it was refused, or neither")


def slug(gpu: str) -> str:
    """A GPU's name as part of a file's, e.g. "nvidia-geforce-rtx-4090"."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")[:64] or "gpu"


def measured_file(folder: Path, gpu: str) -> Path:
    """Where an engine's folder keeps what was measured on a kind of GPU."""
    return folder / f"measured-{slug(gpu)}.json"


def refused_here(folder: Path, facts: EngineFacts) -> str | None:
    """Why an engine was refused when it was finished on this machine's GPU; None: it was not."""
    with suppress(BundleError):
        found = found_measurement(folder, facts, "")
        return None if found is None else found.fault
    return None


def kernels_file(folder: Path, gpu: str, role: Role, digest: str) -> Path:
    """Where an engine's folder keeps kernels that were compiled for a kind of GPU; digest: their SHA-256.

    It is in the name, so that kernels never take the place of those that a file beside them lists.
    """
    return folder / f"kernels-{slug(gpu)}-{role}-{digest[:12]}.cache"


def kept_kernels(folder: Path, facts: EngineFacts, role: Role, remedy: str) -> bytes | None:
    """Kernels of an engine's graph that were compiled for this machine's GPU; None: none were kept, or are damaged.

    What runs on a GPU is as it was written, or is not run.
    """
    with suppress(BundleError):  # they only save time, and `inspect --checksums` tells
        found = found_measurement(folder, facts, remedy)
        for name, listed in (found.files if found is not None else {}).items():
            if found is not None and folder / name == kernels_file(folder, found.gpu, role, listed.sha256):
                check_file(folder / name, listed, remedy, folder)
                return (folder / name).read_bytes()
    return None


def found_measurement(folder: Path, facts: EngineFacts, remedy: str) -> Measured | None:
    """What was measured of an engine on this machine's GPU; where none is told of, the only one that there is.

    remedy: the command that measures again. Raises `BundleError` where the file is damaged.
    """
    files, gpu = measured_files(folder), None
    if files and (gpu := used_gpu()) is not None:
        files = [file for file in files if file == measured_file(folder, gpu.name)]
    found = read_sealed(files[0], Measured, remedy, MEASURED_SCHEMA) if len(files) == 1 else None
    another = found is not None and gpu is not None and gpu.name != found.gpu  # names that are alike as files'
    return found if found is not None and is_of(found, facts) and not another else None


def measured_files(folder: Path) -> list[Path]:
    """What an engine's folder keeps of all kinds of GPU."""
    bundle = folder.parent.parent
    return sorted(file for file in folder.glob("measured-*.json") if file.is_file() and not leads_out(file, bundle))


def is_of(found: Measured, facts: EngineFacts) -> bool:
    """Whether it was measured of this engine, and not of one that lay there before."""
    return found.engine == facts.checksum and (found.fault is not None or found.roles.keys() == facts.roles.keys())


def measured_gpus(folder: Path, facts: EngineFacts) -> list[str]:
    """The kinds of GPU that an engine was measured on; files that are damaged are left out."""
    found = []
    for file in measured_files(folder):
        with suppress(BundleError):
            measured = read_sealed(file, Measured, "", MEASURED_SCHEMA)
            found += [measured.gpu] * (is_of(measured, facts) and measured.fault is None)
    return found


def with_measurement(folder: Path, facts: EngineFacts, remedy: str) -> EngineFacts:
    """An engine's facts with what was measured on this machine's GPU, where something was."""
    found = found_measurement(folder, facts, remedy)
    if found is None or found.fault is not None:
        return facts
    roles = {
        role: replace(each, max_difference=found.roles[role].max_difference, latency=found.roles[role].latency)
        for role, each in facts.roles.items()
    }
    return replace(facts, roles=roles)
