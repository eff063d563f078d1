"""What is here: every backend, tried in a process of its own."""

from collections.abc import Callable
from functools import partial

from benchmarks.hardware.kit.parts import BACKENDS, NAMES, Job, PassedOver, Steps
from benchmarks.hardware.kit.record import Row
from specbeam.engines.doctor.trial import tried, try_backend
from specbeam.engines.installed import PACKAGES, backend_version
from specbeam.engines.registry import DEVICES

COMPILERS = ("tensorrt-rtx",)  # backends that build without a GPU


def steps(job: Job) -> Steps:
    return {backend: partial(tried_out, job, backend) for backend in BACKENDS}


def tried_out(job: Job, backend: str) -> list[Row]:
    """Raises `PassedOver` for a backend that is not here, or cannot be used on the device."""
    usable(job, backend)
    device = "cuda" if backend in COMPILERS else job.device
    row: Row = {"backend": NAMES[backend], "device": device, "version": backend_version(backend)}
    answer = tried(torch_computes, device) if backend == "torch" else tried(try_backend, backend, device)
    if answer.fault is not None:
        raise PassedOver(answer.fault)
    return [row | {"offers": ", ".join(answer.found)}]


def usable(job: Job, backend: str) -> None:
    """Raises `PassedOver` for a backend of another device, and for one that is not installed."""
    if backend not in PACKAGES:
        raise PassedOver(f"this version of SpecBeam has no backend {backend}")
    devices = DEVICES.get(backend, ("cpu", "cuda"))
    if job.device not in devices and backend not in COMPILERS:
        raise PassedOver(f"{NAMES[backend]} runs on {' or '.join(devices)}; this is a dry run on the {job.device}")
    passing(lambda: backend_version(backend))


def passing(look: Callable[[], object]) -> None:
    """Look at what may not be here. Raises `PassedOver` with what is said of it."""
    from specbeam.catalog.errors import EngineError

    try:
        look()
    except EngineError as error:
        raise PassedOver(str(error)) from None


def torch_computes(device: str) -> tuple[str, ...]:
    """A product by PyTorch on the device: its CUDA version, and what the GPU is called."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda
        raise RuntimeError(f"PyTorch {torch.__version__} finds no GPU (it was built for CUDA {built})")
    one = torch.ones(8, 8, device=device)
    if float((one @ one).sum()) != 512:
        raise RuntimeError(f"PyTorch {torch.__version__} computes a product of ones wrongly")
    return (torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}") if device == "cuda" else ("CPU",)
