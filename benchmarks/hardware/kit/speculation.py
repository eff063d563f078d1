"""Larger models of random weights on the device: calls, and searches whose drafts have a given luck (gpu.py)."""

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.hardware.kit.libraries import passing
from benchmarks.hardware.kit.parts import Job, PassedOver, Steps
from benchmarks.hardware.kit.record import Row
from specbeam.engines.installed import backend_version

NEEDED = {"1b": 8e9, "7b": 22e9}  # bytes of the GPU: weights in half precision, caches, and what stands beside them

HEADS = {  # of gpu.py's results, as they stand in the report
    "past": "cached", "floor_ms": "floor ms", "variant": "drafts", "target_calls": "target calls",
    "draft_calls": "draft calls", "target_ms": "ms in the target", "draft_ms": "ms in the draft",
    "host_ms_a_round": "host ms a round",
}  # fmt: skip


def calls(job: Job) -> Steps:
    return steps(job, "calls")


def searches(job: Job) -> Steps:
    return steps(job, "search")


def steps(job: Job, part: str) -> Steps:
    """By target and backend; those that do not fit into the device's memory are passed over."""
    passing(lambda: backend_version("torch"))
    found = {}
    for target in job.sizes.targets:
        for backend in ("torch", "onnxruntime"):
            if backend == "torch" or target in job.sizes.exported:
                found[f"{target}, {backend}"] = partial(measured, job, part, target, backend)
    return found


def measured(job: Job, part: str, target: str, backend: str) -> list[Row]:
    memory = job.setup.gpu_memory
    if memory is not None and memory < NEEDED.get(target, 0):
        raise PassedOver(f"the GPU has {memory / 1e9:.0f} GB, expected {NEEDED[target] / 1e9:.0f} GB at least")
    passing(lambda: backend_version(backend))
    import torch

    from benchmarks.hardware import gpu, gpu_rig

    if job.device == "cuda" and not torch.cuda.is_available():
        raise PassedOver(f"PyTorch {torch.__version__} finds no GPU (it was built for CUDA {torch.version.cuda})")
    sizes = job.sizes
    options = Namespace(
        targets=[target], draft=sizes.draft, device=job.device, precision="fp16" if job.device == "cuda" else "fp32",
        threads=1, codes=sizes.codes, items=sizes.items, prompt=sizes.prompt, batches=list(sizes.batch_sizes[:2]),
        repeats=sizes.repeats, top_k=max(sizes.top_k), width=sizes.width,
    )  # fmt: skip
    bandwidth = gpu_rig.measured_bandwidth(job.device)
    work: Callable[[Namespace, str, float], list[dict[str, Any]]] = {"calls": gpu.calls, "search": gpu.search}[part]
    told = [{HEADS.get(name, name): value for name, value in row.items()} for row in work(options, backend, bandwidth)]
    common: Row = {"backend": backend, "precision": options.precision, "GB/s": round(bandwidth / 1e9, 1)}
    if part == "calls":
        return [common | row for row in told]
    plain = {row["batch"]: row["ms"] for row in told if row["drafts"] == "plain"}
    return [common | row | {"times as fast": plain[row["batch"]] / row["ms"]} for row in told]
