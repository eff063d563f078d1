"""What `doctor` finds of a machine and of a bundle, for people and for programs."""

from ...catalog.bounds import Size
from ...catalog.files import Frozen
from ..machine.gpus import Gpus
from ..machine.processors import Memory, Processors


class Package(Frozen, frozen=True):
    """One package that an extra asks for."""

    wanted: str  # e.g. "onnx>=1.19"
    name: str  # of what is installed, which may be another that brings the same, e.g. "onnx"
    version: str | None  # None: not installed
    fits: bool  # it is installed, and as new as it has to be


class Extra(Frozen, frozen=True):
    """What one extra of this package asks for; its name is "" for what is always needed."""

    name: str
    packages: tuple[Package, ...]
    remedy: str | None  # the command that installs what lacks; None: nothing does


class Usable(Frozen, frozen=True):
    """A backend on a device."""

    backend: str
    device: str
    runs: bool  # it computed something
    fault: str | None
    offers: tuple[str, ...]  # ONNX Runtime's providers; TensorRT's version


class EngineHealth(Frozen, frozen=True):
    """An engine of the bundle."""

    name: str
    runs: bool  # opened, and each of its graphs answered
    fault: str | None
    remedy: str | None  # the command that makes it again; None: it runs


class BundleHealth(Frozen, frozen=True):
    """A bundle, as far as it can be used here."""

    path: str
    fault: str | None  # why it cannot be opened
    default_engine: str | None
    default_fault: str | None  # why none is: one has to be named
    engines: tuple[EngineHealth, ...]
    remedy: str | None  # where no engine is built: the command that builds one


class ServingSize(Frozen, frozen=True):
    """What to serve the bundle with here, and what that gives: by the calls that its engine was timed for, alone on the
    machine, without drafts."""

    engine: str
    threads: int  # of a process
    workers: int  # processes, each at an address of its own
    batch: int  # requests that share a call
    top_k: int  # items of the lists that these numbers hold for
    history: int  # likewise, of the histories
    prompt_tokens: int  # of these
    users_per_second: float  # of all processes
    alone_ms: float  # a list by itself
    batch_ms: float  # every list of a full batch
    memory: Size  # bytes of a process where its engine is: itself, weights, the caches of a full batch
    notes: tuple[str, ...]


class Health(Frozen, frozen=True):
    """All of it."""

    specbeam: str
    python: str
    system: str
    processors: Processors
    memory: Memory
    gpus: Gpus
    extras: tuple[Extra, ...]
    cuda_packages: dict[str, str]  # NVIDIA's, where pip has brought them: name to version
    backends: tuple[Usable, ...]
    notes: tuple[str, ...]  # what is usable, and yet not as it should be
    bundle: BundleHealth | None
    healthy: bool  # an engine of the bundle runs; without a bundle: ONNX Runtime does
    serving: ServingSize | None = None  # who examines does not size: that takes the runtime's costs


def describe(health: Health) -> str:
    """All of it as lines of text."""
    lines = [
        f"SpecBeam {health.specbeam}, {health.python}, {health.system}",
        f"  processors {_processors(health.processors)}",
        f"  memory     {_memory(health.memory)}",
        *_gpus(health),
        "  backends",
        *(f"    {one.backend} on {one.device}: {_usable(one)}" for one in health.backends),
        "  packages",
        *map(_extra, health.extras),
        *(f"  note       {note}" for note in health.notes),
        *(_bundle(health.bundle) if health.bundle is not None else []),
        *(_serving(health.serving) if health.serving is not None else []),
    ]
    return "\n".join(lines)


def _processors(found: Processors) -> str:
    quota = "" if found.quota is None else f", {found.quota:g} processors' time by its control group"
    sets = " ".join(found.instructions) or "no instruction sets of interest are known"
    return f"{found.name} ({found.architecture}), {found.usable} of {found.all} usable{quota}; {sets}"


def _memory(found: Memory) -> str:
    total, available = (
        "unknown" if size is None else f"{size / 1e9:.1f} GB" for size in (found.total, found.available)
    )
    limit = "" if found.limit is None else f"; at most {found.limit / 1e9:.1f} GB by this process's control group"
    return f"{total}, {available} available{limit}"


def _gpus(health: Health) -> list[str]:
    found = health.gpus
    told = []
    for gpu in found.devices:
        free = "" if gpu.free is None else f", {gpu.free / 1e9:.1f} GB free"
        memory = "" if gpu.memory is None else f", {gpu.memory / 1e9:.1f} GB{free}"
        capability = "" if gpu.compute_capability is None else f", compute capability {gpu.compute_capability}"
        told.append(f"  gpu        {gpu.name}{memory}{capability}")
    if found.fault is not None:
        told.append(f"  gpu        none is known: {found.fault}")
    if found.visible is not None:
        told.append(f"  gpu        CUDA_VISIBLE_DEVICES={found.visible} chooses among them")
    driver = [f"driver {found.driver}"] * (found.driver is not None)
    cuda = [f"CUDA up to {found.cuda} by the driver"] * (found.cuda is not None)
    packages = [f"{name} {version}" for name, version in health.cuda_packages.items()]
    parts = ", ".join([*driver, *cuda, *packages])
    return [*told, f"  cuda       {parts or 'none: neither a driver nor packages of its libraries'}"]


def _usable(one: Usable) -> str:
    return f"runs ({', '.join(one.offers)})" if one.runs else f"does not run. {one.fault}"


def _extra(extra: Extra) -> str:
    told = []
    for package in extra.packages:
        if package.fits:
            told.append(f"{package.name} {package.version}")
        elif package.version is None:
            told.append(f"{package.wanted} is not installed")
        else:
            told.append(f"{package.name} {package.version} is older than {package.wanted}")
    remedy = "" if extra.remedy is None else f". Run: {extra.remedy}"
    return f"    {extra.name or 'always':<10} {', '.join(told)}{remedy}"


def _bundle(found: BundleHealth) -> list[str]:
    if found.fault is not None:
        return [f"{found.path}: not usable. {found.fault}"]
    running = [engine.name for engine in found.engines if engine.runs]
    lines = [f"{found.path}: {len(running)} of {len(found.engines)} engines run here"]
    for engine in found.engines:
        named = f"  {engine.name}{', the default' * (engine.name == found.default_engine)}"
        lines.append(f"{named}: runs" if engine.runs else f"{named}: does not run. {engine.fault}")
        if engine.remedy is not None and engine.remedy not in (engine.fault or ""):
            lines.append(f"    To make it again: {engine.remedy}")
    if found.remedy is not None:
        lines.append(f"  no engine is built. Run: {found.remedy}")
    elif found.default_fault is not None:
        lines.append(f"  no default: {found.default_fault}")
    elif running and found.default_engine not in running:
        lines.append(f"  the default does not run here: choose another with --engine {running[0]}")
    return lines


def _serving(size: ServingSize) -> list[str]:
    each = f", {size.workers} processes, each at a port of its own" if size.workers > 1 else ""
    return [
        "Serving",
        f"  run        specbeam serve --engine {size.engine} --threads {size.threads} --batch-size {size.batch}{each}",
        f"  expect     up to {size.users_per_second:,.3g} users a second; a list takes {size.alone_ms:,.3g} ms alone, "
        f"{size.batch_ms:,.3g} ms in a full batch",
        f"  memory     {size.memory / 1e9:.1f} GB a process",
        f"  that is    lists of {size.top_k} for histories of {size.history} ({size.prompt_tokens} tokens), nothing "
        "drafted, by the times that the engine's calls took when it was built",
        *(f"  note       {note}" for note in size.notes),
    ]
