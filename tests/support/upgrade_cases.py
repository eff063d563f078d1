"""Artifacts of former schemas."""

from pathlib import Path

import onnxruntime

from places import ROOT
from specbeam.engines.bundle.items import Bundle

KEPT = ROOT / "tests" / "artifacts"


INT8 = "onnxruntime-cpu-int8"


def same_minor(bundle: Path, engine: str) -> bool:
    """Whether ONNX Runtime here is one that an engine's own opens with."""
    built = Bundle.open(bundle).engine_facts(engine).versions["onnxruntime"]
    return built.split(".")[:2] == onnxruntime.__version__.split(".")[:2]
