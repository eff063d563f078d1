"""What TensorRT for RTX compiles graphs of the contract to: its genuine compiler, which needs no GPU."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx_ir as ir
import pytest

from rtx_layers import compiled
from specbeam.calib.matmuls import activations
from specbeam.calib.quantize import quantize
from specbeam.calib.ranges import Ranges
from specbeam.engines.bundle.facts import ModelFacts, Precision
from specbeam.engines.prepare import prepare_graph
from specbeam.engines.tensorrt.kernels import ProfileKernels, count_kernels
from specbeam.engines.tensorrt.profiles import profiles_for
from tiny_models import make_model
from trt_cases import LENGTH, LIMITS, ROWS, VOCABULARY

trt = pytest.importorskip(
    "tensorrt_rtx", reason="needs TensorRT for RTX: pip install tensorrt-rtx", exc_type=ImportError
)
pytestmark = pytest.mark.compiler
LAYERS = 2


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The graph of a Llama by the size of its heads, made once."""
    from specbeam.export.onnx import export_graph

    @cache
    def made(head_dim: int) -> Path:
        path = tmp_path_factory.mktemp("graphs") / "model.onnx"
        export_graph(make_model(rows=ROWS, head_dim=head_dim), VOCABULARY, path)
        return path

    return made


def counted(graph: Path, folder: Path, head_dim: int, wanted: Precision, capability: str) -> list[ProfileKernels]:
    """What a graph's two profiles run; nothing where it is not compiled."""
    facts = ModelFacts(
        architecture="LlamaForCausalLM", parameters=0, layers=LAYERS, kv_heads=2, head_dim=head_dim, vocabulary=ROWS,
        context=128,
    )  # fmt: skip
    prepared = prepare_graph(
        graph, folder / "prepared.onnx", exported="fp32", wanted=wanted, mask_slots=LENGTH, decomposed=True
    )
    profiles = profiles_for("target", facts, LIMITS, LENGTH)
    layers = compiled(prepared, profiles, capability)
    assert all(layer.kind for layer in layers)
    return list(count_kernels(layers, LAYERS, [profile.name for profile in profiles])) if layers else []


@pytest.mark.parametrize(
    ("head_dim", "wanted", "capability"),
    [(16, "fp16", "7.5"), (16, "fp16", "8.6"), (16, "bf16", "8.9"), (16, "fp32", "12.0"), (8, "fp16", "8.6")],
)
def test_attention_with_an_additive_mask(
    exported: Callable[[int], Path], tmp_path: Path, head_dim: int, wanted: Precision, capability: str
) -> None:
    fused = wanted != "fp32" and head_dim >= 16
    found = counted(exported(head_dim), tmp_path, head_dim, wanted, capability)
    assert [kernels.profile for kernels in found] == ["prefill+verify", "verify"]
    for kernels in found:
        assert kernels.attention == ({wanted: LAYERS} if fused else {})
        assert kernels.attention_products == ({} if fused else {wanted: 2 * LAYERS})
        assert (kernels.not_fused, len(kernels.not_fused_nodes)) == ((0, 0) if fused else (LAYERS, LAYERS))
        # queries, keys and values as one product, but in the last layer; gate and up as one; the head
        assert list(kernels.products) == [wanted]
        assert 9 <= kernels.products[wanted] <= 10


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_what_an_architecture_lacks(exported: Callable[[int], Path], tmp_path: Path, wanted: Precision) -> None:
    assert counted(exported(16), tmp_path, 16, wanted, "7.5") == []


def test_calibrated_products_cost_no_kernel(exported: Callable[[int], Path], tmp_path: Path) -> None:
    graph = exported(16)
    ranges = Ranges(
        source_sha256="", estimator="minmax", percentile=None, histories=0, calls=0, seed=0, channels={},
        tensors=dict.fromkeys(activations(ir.load(graph)), (-1.0, 1.0)),
    )  # fmt: skip
    quantize(graph, tmp_path / "quantized.onnx", "static", ranges=ranges, symmetric=True)
    plain = counted(graph, tmp_path, 16, "fp16", "8.6")
    integers = counted(tmp_path / "quantized.onnx", tmp_path, 16, "fp16", "8.6")
    for before, after in zip(plain, integers, strict=True):
        assert after.products == {"int8": sum(before.products.values())}
        assert after.attention == before.attention
        assert sum(after.others.values()) <= sum(before.others.values()) + 1


def test_the_inspector_has_what_is_asked_of_it() -> None:
    assert "JSON" in trt.LayerInformationFormat.__members__
    assert {"create_engine_inspector"} <= set(dir(trt.ICudaEngine))
    assert {"get_engine_information"} <= set(dir(trt.EngineInspector))
