"""A tiny model as TensorRT engines get it, its profiles, and the same model in ONNX Runtime to compare with."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from specbeam.engines.bundle.facts import Limits, ModelFacts, TensorRTFacts
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.engines.onnxruntime.dense import OrtEngine
from specbeam.engines.prepare import prepare_graph
from specbeam.engines.tensorrt.build import Kind, TrtOptions, build_plan
from specbeam.engines.tensorrt.flavour import TENSORRT, Flavour
from specbeam.engines.tensorrt.profiles import profiles_for

ROWS, LENGTH = 28, 3  # tokens of the model; of an identifier
VOCABULARY = np.arange(4, ROWS)
LIMITS = Limits(max_batch=4, max_prompt=12, max_nodes=16, path=LENGTH)
REBUILD = "specbeam build-engine BUNDLE --backend tensorrt"
FACTS = ModelFacts(
    architecture="LlamaForCausalLM", parameters=0, layers=2, kv_heads=2, head_dim=8, vocabulary=ROWS, context=128
)


@dataclass(frozen=True)
class Graphs:
    """The exported graph and what is built from it."""

    exported: Path
    fp32: Path
    fp16: Path

    def reference(self) -> OrtEngine:
        return load_ort_engine(self.exported, FACTS, device="cpu", precision="fp32", threads=1)


def export_graphs(folders: pytest.TempPathFactory) -> Graphs:
    """Exported once in a session, however many test files ask."""
    return _export(folders.getbasetemp() / "trt_graphs")


@cache
def _export(folder: Path) -> Graphs:
    from specbeam.export.onnx import export_graph
    from tiny_models import make_model

    folder.mkdir()
    exported = folder / "model.onnx"
    export_graph(make_model(rows=ROWS), VOCABULARY, exported)
    fp32, fp16 = (
        prepare_graph(
            exported, folder / wanted / "model.onnx", exported="fp32", wanted=wanted, mask_slots=LENGTH, decomposed=True
        )
        for wanted in ("fp32", "fp16")
    )
    return Graphs(exported, fp32, fp16)


def build(
    graph: Path, plan: Path, *, limits: Limits = LIMITS, options: TrtOptions | None = None, flavour: Flavour = TENSORRT
) -> TensorRTFacts:
    """The plan of a target in float32 or float16, as the graph's folder says."""
    precision = "fp16" if graph.parent.name == "fp16" else "fp32"
    return build_plan(
        graph, plan, FACTS, profiles_for("target", FACTS, limits, LENGTH), limits=limits, identifier_length=LENGTH,
        kind=Kind(flavour, precision, precision), options=options or TrtOptions(),
    )  # fmt: skip


def facts_of(version: str) -> TensorRTFacts:
    """Of a plan that TensorRT `version` built."""
    return TensorRTFacts(
        version=version, compute_capability="9.0", version_compatible=False, hardware_compatible=False, limits=LIMITS,
        profiles=("prefill+verify", "verify"),
    )  # fmt: skip
