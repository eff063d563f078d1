"""Engines that keep everything on a device, built by hand from a bundle's graphs."""

import shutil
from pathlib import Path

from specbeam.engines.base import Engine
from specbeam.engines.bundle.facts import ENCODER, Precision, Role
from specbeam.engines.bundle.model import ModelBundle
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.engines.onnxruntime.device import GATHER, DeviceEngine
from specbeam.engines.onnxruntime.device_encoder_decoder import DeviceEncoderDecoder
from specbeam.engines.prepare import prepare_graph
from specbeam.graphs.gather import write_gather

PATH = 4  # slots a token may name


def built(
    bundle: ModelBundle, role: Role, folder: Path, precision: Precision = "fp32", *, device: str = "cpu",
    graphs: bool = True, slots: int = PATH,
) -> DeviceEngine:  # fmt: skip
    """An engine with index inputs (`slots` a token) of one of a bundle's graphs; graphs: capture them where it can."""
    engine = load(bundle, role, written(bundle, role, folder, precision, slots), precision, device, graphs)
    assert isinstance(engine, DeviceEngine)
    return engine


def built_encoder_decoder(
    bundle: ModelBundle, role: Role, folder: Path, precision: Precision = "fp32", *, device: str = "cpu"
) -> DeviceEncoderDecoder:
    """As `built`, of an encoder-decoder."""
    graph, exported = written(bundle, role, folder, precision, PATH), bundle.manifest.precision
    encoder = prepare_graph(bundle.encoder(role), folder / ENCODER, exported=exported, wanted=precision)
    if encoder != folder / ENCODER:
        shutil.copy(encoder, folder)
    engine = load(bundle, role, graph, precision, device, True)
    assert isinstance(engine, DeviceEncoderDecoder)
    return engine


def written(bundle: ModelBundle, role: Role, folder: Path, precision: Precision, slots: int) -> Path:
    """A graph with index inputs, and a gather graph beside it."""
    write_gather(folder / GATHER, bundle.facts(role).layers, precision)
    exported = bundle.manifest.precision
    return prepare_graph(
        bundle.graph(role), folder / "model.onnx", exported=exported, wanted=precision, mask_slots=slots
    )  # fmt: skip


def load(bundle: ModelBundle, role: Role, graph: Path, precision: Precision, device: str, graphs: bool) -> Engine:
    """The engine over it."""
    return load_ort_engine(
        graph, bundle.facts(role), device=device, precision=precision, threads=1, cuda_graphs=graphs
    )  # fmt: skip
