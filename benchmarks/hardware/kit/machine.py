"""What the kit runs on: the GPU, its driver, the versions of everything."""

import os
import platform

from benchmarks.hardware.kit.record import VERSION, Setup
from specbeam import __version__
from specbeam.catalog.errors import EngineError
from specbeam.engines.doctor.examine import CUDA, installed
from specbeam.engines.machine.gpus import Gpu, Gpus, found_gpus
from specbeam.engines.machine.processors import found_processors

LIBRARIES = (
    "numpy", "torch", "transformers", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-cu13",
    "tensorrt-cu12", "tensorrt-rtx", "polygraphy", *CUDA,
)  # fmt: skip


def used(gpus: Gpus) -> Gpu:
    """The GPU that CUDA takes: the first, or the one that CUDA_VISIBLE_DEVICES names first.

    Raises `EngineError` where there is none, saying what to do.
    """
    if not gpus.devices:
        raise EngineError(
            f"No NVIDIA GPU is known here: {gpus.fault}. Run this where one and its driver are, or see what it does "
            "by a dry run, which measures this machine's processor: --device cpu"
        )
    first = (gpus.visible or "").split(",")[0].strip()
    if gpus.visible is not None and not (first and first != "-1"):
        raise EngineError("CUDA_VISIBLE_DEVICES hides every GPU. Unset it, or ask for a dry run: --device cpu")
    place = int(first) if first.isdecimal() else 0
    return gpus.devices[place] if place < len(gpus.devices) else gpus.devices[0]


def found_setup(device: str, pair: str, size: str) -> Setup:
    """Everything that a result depends on. Raises `EngineError` where the device is "cuda" and there is no GPU."""
    gpus = found_gpus() if device == "cuda" else Gpus(devices=(), driver=None, cuda=None, visible=None, fault=None)
    gpu = used(gpus) if device == "cuda" else Gpu(name="", memory=None, free=None, compute_capability=None)
    processors = found_processors()
    versions = {"specbeam": __version__, "python": platform.python_version()}
    return Setup(
        device=device, gpu=gpu.name or None, compute_capability=gpu.compute_capability, gpu_memory=gpu.memory,
        driver=gpus.driver, cuda=gpus.cuda, processor=processors.name, processors=processors.usable,
        system=platform.platform(), pair=pair, size=size, kit=VERSION,
        versions=versions | {name: here for name in LIBRARIES if (here := installed(name)) is not None},
    )  # fmt: skip


def free_memory() -> int | None:
    """Bytes that the GPU in use has free; None: not told, or there is none."""
    gpus = found_gpus()
    return used(gpus).free if gpus.devices and os.environ.get("CUDA_VISIBLE_DEVICES") != "" else None
