"""Weights alone in TensorRT for RTX: its genuine compiler, which needs no GPU, makes one kernel a product."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from commands import bad, good, user, write
from rtx_layers import compiled
from specbeam.calib.quantize import Method, quantize
from specbeam.engines.bundle.facts import ModelFacts, Precision
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.prepare import prepare_graph
from specbeam.engines.tensorrt.kernels import sort_of
from specbeam.engines.tensorrt.layers import Layer, read_layers
from specbeam.engines.tensorrt.profiles import profiles_for
from tiny_models import make_model
from trt_cases import LENGTH, LIMITS, ROWS, VOCABULARY

pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX: pip install tensorrt-rtx", exc_type=ImportError)
pytestmark = pytest.mark.compiler
LAYERS, HEADS, WIDTH, ODD = 2, 2, 64, ROWS + 1
PRODUCTS = 7 * LAYERS + 1  # and the head
FACTS = ModelFacts(
    architecture="LlamaForCausalLM", parameters=0, layers=LAYERS, kv_heads=HEADS, head_dim=16, vocabulary=ODD,
    context=128,
)  # fmt: skip


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from specbeam.export.onnx import export_graph

    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "head_dim": 16}
    export_graph(make_model(rows=ODD, num_hidden_layers=LAYERS, **sizes), VOCABULARY, path)
    return path


def written(path: Path) -> Path:
    """Histories of 60 users."""
    rng = np.random.default_rng(0)
    return write(path, *(user(f"u{i}", *rng.integers(0, 40, 6).astype(str).tolist()) for i in range(60)))


def kernels(graph: Path, folder: Path, method: Method, wanted: Precision, capability: str) -> list[Layer]:
    """What the first profile runs; nothing where the graph is not compiled."""
    quantize(graph, folder / "quantized.onnx", method, weights="dequantize")
    prepared = prepare_graph(
        folder / "quantized.onnx", folder / "prepared.onnx", exported="fp32", wanted=wanted, mask_slots=LENGTH,
        decomposed=True,
    )  # fmt: skip
    layers = compiled(prepared, profiles_for("target", FACTS, LIMITS, LENGTH), capability)
    return [layer for layer in layers if layer.profile == 0]


@pytest.mark.parametrize(
    ("method", "wanted", "capability"),
    [("weight8", "fp16", "8.0"), ("weight8", "bf16", "8.9"), ("weight4", "fp16", "8.6"), ("weight4", "bf16", "12.0")],
)
def test_every_product_reads_the_integers(
    graph: Path, tmp_path: Path, method: Method, wanted: Precision, capability: str
) -> None:
    integers = {"weight8": "int8", "weight4": "int4"}[method]
    found = kernels(graph, tmp_path, method, wanted, capability)
    reading = [layer for layer in found if integers in layer.weights]
    assert len(reading) == PRODUCTS
    assert {sort_of(layer) for layer in reading} == {"product"}
    assert {layer.outputs for layer in reading} == {(wanted,)}
    assert not [layer for layer in found if sort_of(layer) == "product" and layer not in reading and layer.weights]


def test_7_5_has_8_bits_alone(graph: Path, tmp_path: Path) -> None:
    """Which is why no backend that compiles for it offers `weight4`."""
    assert kernels(graph, tmp_path, "weight8", "fp16", "7.5")
    assert kernels(graph, tmp_path, "weight4", "fp16", "7.5") == []


def test_both_graphs_of_an_encoder_decoder(encoder_decoders: Path, tmp_path: Path) -> None:
    own, histories = shutil.copytree(encoder_decoders, tmp_path / "bundle"), written(tmp_path / "histories.jsonl")
    good(
        "build-engine", own, "--backend", "tensorrt-rtx", "--precision", "int8-weights", "--threads", 1, "--no-gate",
        "--calibration", histories, "--compute-capability", "8.6", "--max-batch", 2, "--method", "weight8",
    )  # fmt: skip
    told = json.loads(good("inspect", own, "--engine", "tensorrt-rtx-cuda-int8-weights", "--layers", "--json").output)
    for role, products in (("target", (2 * 8 + 1, 3 * 6 + 4)), ("draft", (9 + 1, 7 + 2))):
        for graph, expected in zip((told["roles"][role], told["encoders"][role]), products, strict=True):
            assert {profile["products"]["fp16 x int8"] for profile in graph["profiles"]} == {expected}


def test_the_command(bundle: Path, tmp_path: Path) -> None:
    histories = written(tmp_path / "histories.jsonl")
    command = ["build-engine", bundle, "--backend", "tensorrt-rtx", "--precision", "int8-weights", "--threads", 1]
    told = good(*command, "--calibration", histories, "--no-gate").output
    assert "target: weight8, weights alone; tried (divergence in nats):" in told
    name = "tensorrt-rtx-cuda-int8-weights"
    facts = Bundle.open(bundle).engine_facts(name).roles
    for role in ("target", "draft"):
        assert (facts[role].precision, facts[role].cache) == ("int8-weights", "fp16")
        reading = [layer for layer in read_layers(bundle / "engines" / name / role, "") if "int8" in layer.weights]
        assert reading
        assert {sort_of(layer) for layer in reading} == {"product"}
    assert "int8-weights needs histories to compare rankings on" in bad(*command, "--overwrite")
    for option in (["--estimator", "minmax"], ["--no-smooth"], ["--smooth", 0.8], ["--ranges", tmp_path]):
        told = bad(*command, "--overwrite", "--calibration", histories, *option)
        assert f"{option[0]}: for --precision int8 only; int8-weights leaves activations as they are" in told
    told = bad(
        *command, "--calibration", histories, "--method", "weight4", "--compute-capability", "7.5", "--overwrite"
    )
    assert "takes int8-weights by weight8; got weight4" in told
