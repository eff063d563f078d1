"""Layers of a plan, from the builder's log and the engine inspector's JSON, and what they come to."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from layer_cases import ATTENTION, DECOMPOSED, LOG, PRODUCT, log_of
from specbeam.catalog.errors import EngineError
from specbeam.engines.tensorrt.kernels import count_kernels, sort_of, types_of
from specbeam.engines.tensorrt.layers import (
    LAYERS,
    Layer,
    layers_of_engine,
    layers_of_inspector,
    layers_of_log,
    read_layers,
    write_layers,
)


def test_layers_of_a_log() -> None:
    found = layers_of_log(LOG)
    assert [layer.kind for layer in found] == [
        "ShapeHostToDevice", "shape_call", "gemm", "kgen", "runtime_fusion", "ShapeHostToDevice", "signal", "gemm",
        "kgen",
    ]  # fmt: skip
    product, attention = found[2], found[3]
    assert product == Layer(
        name="node_linear_2+node_linear_1_myl1_3", kind="gemm", tactic="__myelin_CASK_STUB", inputs=("fp16",),
        weights=("fp16",), outputs=("fp16",), nodes=("node_linear_2", "node_linear_1"), profile=0,
    )  # fmt: skip
    assert (attention.name, attention.tactic[:12]) == ("_gemm_mha_v2_myl1_10", "_gemm_mha_v2")
    assert (attention.inputs, attention.weights) == (("fp16",) * 4, ())
    assert attention.nodes == ("node_scaled_dot_product_attention.wanted",)
    assert found[0].outputs == ("int64",)


def test_layers_belong_to_the_profiles_that_their_region_names() -> None:
    found = layers_of_log(LOG)
    assert [layer.profile for layer in found] == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert found[6].name == "__mye30165_myl3_4"  # says nothing of a profile itself
    assert found[7].nodes == ("node_linear_7",)


def test_the_newest_list_of_a_log_counts() -> None:
    assert layers_of_log(log_of(PRODUCT) + LOG) == layers_of_log(LOG)
    assert layers_of_log("VERBOSE nothing was compiled\n") == ()
    assert layers_of_log("") == ()


def test_names_hold_whatever_an_exporter_wrote() -> None:
    for name in ("a, b", "x], y [", "{ Name: z }", "LayerType", "é"):
        (found,) = layers_of_log(log_of(PRODUCT.replace("node_linear_2+node_linear_1", name)))
        assert (found.name, found.kind, found.weights) == (f"{name}_myl1_3", "gemm", ("fp16",))


def test_layers_of_tensorrt_10() -> None:
    half, whole = "Format/Datatype: Half", "Format/Datatype: Row major linear FP16 format"
    product = (
        f"Name: /mha/MatMul_myl0_7, LayerType: gemm, Inputs: [ {{ Name: x, Dimensions: [1,40], {half} }}@], Outputs: [ "
        f"{{ Name: y, Dimensions: [1,25], {whole} }}], TacticName: sm80_xmma_gemm_f16f16, StreamId: 0, Metadata: "
    )
    weight = f", {{ Name: __mye5_dconst, Dimensions: [40,25], {half} }}"
    factor = ", { Name: __mye4/mha/MatMul_alpha, Dimensions: [1], Format/Datatype: Float }"
    for listed, weights in (("", ()), (weight + factor, ("fp16",))):
        (found,) = layers_of_log(log_of(product.replace("@", listed)))
        assert (found.inputs, found.weights, found.outputs) == (("fp16",), weights, ("fp16",))
        (counted,) = count_kernels([found], 0)
        assert (counted.products, counted.attention_products, counted.attention) == ({"fp16": 1}, {}, {})


def in_json(line: dict[str, Any]) -> tuple[Layer, ...]:
    return layers_of_inspector(json.dumps({"Layers": [line], "Bindings": ["input_ids"]}))


def tensor(types: str, key: str, *sizes: int) -> dict[str, Any]:
    return {"Name": "t", "Location": "Device", "Dimensions": list(sizes), key: types}


@pytest.mark.parametrize(
    ("key", "said"),
    [("Datatype", "Half"), ("Format/Datatype", "Row major linear FP16 format"), ("Format/Datatype", "Half")],
)
def test_layers_of_the_inspector(key: str, said: str) -> None:
    (found,) = in_json({
        "Name": "node_linear_2+node_linear_1_myl1_3", "LayerType": "gemm", "Inputs": [tensor(said, key, -1, 128)],
        "Outputs": [tensor(said, key, 2, -1, 128)], "TacticName": "__myelin_CASK_STUB", "StreamId": 0,
        "Constants": [tensor(said, key, 2, 128, 128), tensor("Float", key, 1)],
        "Metadata": "[ONNX Layer: node_linear_2]\u001e[ONNX Layer: node_linear_1]",
    })  # fmt: skip
    assert found == layers_of_log(LOG)[2]


def test_layers_of_an_engine() -> None:
    class Engine:
        def create_engine_inspector(self) -> "Engine":
            return self

        def get_engine_information(self, form: str) -> str:
            return json.dumps({"Layers": [form]})

    trt = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON="as JSON"))
    assert [layer.name for layer in layers_of_engine(trt, Engine())] == ["as JSON"]


def test_layers_of_the_inspector_in_other_forms() -> None:
    (plain,) = in_json({
        "Name": "conv", "LayerType": "CaskGemmMatrixMultiply", "TacticValue": "0x2", "Metadata": "",
        "Inputs": [tensor("N/A due to dynamic shapes", "Format/Datatype")], "Outputs": [],
        "Weights": {"Type": "Int8", "Count": 16384},
    })  # fmt: skip
    assert (plain.inputs, plain.weights, plain.tactic, plain.nodes) == (("?",), ("int8",), "", ())
    (named,) = layers_of_inspector('{"Layers": ["MatMul_1 + Add_2 [profile 1]"]}')
    assert (named.name, named.kind, named.profile) == ("MatMul_1 + Add_2 [profile 1]", "", 1)
    for text in ("", "[]", '{"Bindings": []}', '{"Layers": 3}', '{"Layers": [{"LayerType": "gemm"}]}'):
        with pytest.raises(EngineError, match="without a list of layers"):
            layers_of_inspector(text)


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    layers = layers_of_log(LOG)
    write_layers(tmp_path, layers)
    assert read_layers(tmp_path, "again") == layers
    write_layers(tmp_path, ())
    assert read_layers(tmp_path, "again") == ()


@pytest.mark.parametrize("content", [None, b"", b"[]", b"\xff", b'{"schema_version": 2, "layers": []}'])
def test_what_is_absent_damaged_or_of_another_version(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / LAYERS).write_bytes(content)
    with pytest.raises(EngineError, match=r"layers.json .*[Bb]uild it again with: specbeam build-engine b"):
        read_layers(tmp_path, "specbeam build-engine b")


def test_kernels_are_counted_by_profile() -> None:
    first, second = count_kernels(layers_of_log(LOG), 1, ("prefill+verify", "verify"))
    assert (first.profile, second.profile) == ("prefill+verify", "verify")
    assert (first.attention, first.products, first.others, first.steps) == ({"fp16": 1}, {"fp16": 2}, {}, 2)
    assert (first.not_fused, first.attention_products) == (0, {})
    assert (second.attention, second.products, second.others, second.steps) == ({}, {"fp16": 1}, {"fp32": 1}, 2)
    assert second.described() == [
        "verify: fused attentions 0; matrix products 1 fp16; other kernels 1 fp32; 2 steps without a kernel",
        "  not fused: 1 of 1 attentions",
    ]


def test_an_attention_that_was_written_out() -> None:
    (counted,) = count_kernels(layers_of_log(log_of(*DECOMPOSED)), 2)
    assert (counted.profile, counted.attention_products, counted.products) == ("profile 0", {"fp32": 2}, {"fp16": 1})
    assert (counted.not_fused, counted.not_fused_nodes) == (2, ("node_scaled_dot_product_attention",))
    assert counted.described()[0].startswith(
        "profile 0: fused attentions 0; matrix products 1 fp16, 2 fp32 of attentions"
    )
    assert counted.described()[1] == "  not fused: 2 of 2 attentions (node_scaled_dot_product_attention)"


def test_a_product_of_weights_that_another_kernel_unpacked_is_of_no_attention() -> None:
    alone = DECOMPOSED[0].replace("scaled_dot_product_attention", "linear_5")
    (counted,) = count_kernels(layers_of_log(log_of(alone)), 0)
    assert (counted.attention_products, counted.products) == ({}, {"fp32": 1})


def test_sorts_and_types() -> None:
    found = layers_of_log(LOG)
    assert [sort_of(layer) for layer in found] == [
        "step", "step", "product", "attention", "product", "step", "step", "product", "other",
    ]  # fmt: skip
    one = {"name": "x", "kind": "kgen", "tactic": "", "nodes": (), "profile": 0}
    types = [
        ((), (), "?"), (("?",), (), "?"), (("int64", "?"), ("int32",), "int"), (("int8",), ("fp16",), "fp16+int8"),
        (("fp16", "int64"), ("fp32",), "fp32+fp16"),
    ]  # fmt: skip
    for inputs, outputs, wanted in types:
        assert types_of(Layer(**one, inputs=inputs, outputs=outputs, weights=())) == wanted
    product = one | {"kind": "gemm", "outputs": ("fp16",)}
    for read, weights, wanted in (
        (("fp16",), ("int4", "fp16"), "fp16 x int4"), (("fp16", "int8"), ("int8", "fp32"), "int8"),
        (("fp16",), ("fp16",), "fp16"), (("fp32", "fp32"), (), "fp32"), (("?",), (), "?"),
    ):  # fmt: skip
        assert types_of(Layer(**product, inputs=read, weights=weights)) == wanted
    for name in ("_gemv_mha_v1_myl0_4", "fmha_v2_flash_attention_fp16_S_64_sm86"):
        assert sort_of(Layer(**one | {"name": name}, inputs=(), outputs=(), weights=())) == "attention"
    assert sort_of(layers_of_log(log_of(ATTENTION))[0]) == "attention"
