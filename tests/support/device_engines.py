"""Engines that keep everything on a device, built by hand from a bundle's graphs."""

from pathlib import Path

from specbeam.engines.bundle.facts import Precision, Role
from specbeam.engines.bundle.model import ModelBundle
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.engines.onnxruntime.device import GATHER, DeviceEngine
from specbeam.engines.prepare import prepare_graph
from specbeam.graphs.gather import write_gather

PATH = 4  # slots a token may name


def built(
    bundle: ModelBundle, role: Role, folder: Path, precision: Precision = "fp32", *, device: str = "cpu",
    graphs: bool = True, slots: int = PATH,
) -> DeviceEngine:  # fmt: skip
    """An engine with index inputs (`slots` a token) of one of a bundle's graphs; graphs: capture them where it can."""
    facts, path = bundle.facts(role), folder / "model.onnx"
    prepare_graph(
        bundle.graph(role), path, exported=bundle.manifest.precision, wanted=precision, mask_slots=slots
    )  # fmt: skip
    write_gather(folder / GATHER, facts.layers, precision)
    engine = load_ort_engine(path, facts, device=device, precision=precision, threads=1, cuda_graphs=graphs)
    assert isinstance(engine, DeviceEngine)
    return engine
