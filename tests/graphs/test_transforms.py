"""Graphs folded, decomposed and with index masks: the same numbers, in the form that was asked for."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from specbeam.catalog.errors import EngineError
from specbeam.graphs.decompose import decompose
from specbeam.graphs.files import load_graph, save_graph
from specbeam.graphs.fold import fold_weights
from specbeam.graphs.index_mask import index_mask
from specbeam.graphs.lift import lift_graph
from tiny_graphs import CALLS, PATH, Call, checked, difference, make_call, open_graph, tiny_graph
from tiny_models import KINDS


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@pytest.mark.parametrize("kind", KINDS)
def test_every_transform_computes_the_same(tmp_path: Path, kind: str) -> None:
    source = open_graph(tiny_graph(kind))
    steps = {"fold": fold_weights, "decompose": decompose, "mask": lambda model: index_mask(model, PATH)}
    for name, chosen in {**{name: [step] for name, step in steps.items()}, "all": list(steps.values())}.items():
        model = load_graph(tiny_graph(kind))
        for step in chosen:
            step(model)
        result = open_graph(checked(model, tmp_path / f"{name}.onnx"))
        found = max(difference(source, result, call) for call in CALLS)
        assert found <= (1e-5 if name in ("decompose", "all") else 0)
    assert not {"RMSNormalization", "RotaryEmbedding"} & set(operators(model))
    assert operators(model)["Attention"] == 1
    attention = next(node for node in model.graph if node.op_type == "Attention")
    assert set(attention.attributes) == {"scale"}


def test_norms_of_a_half_graph_are_computed_in_float32(tmp_path: Path) -> None:
    source = tiny_graph("qwen3", "bf16")
    model = load_graph(source)
    assert operators(model)["RMSNormalization"] == 5
    fold_weights(model)
    decompose(model)
    index_mask(model, PATH)
    result = checked(model, tmp_path / "model.onnx")
    kinds = {node.op_type: node.outputs[0].dtype for node in model.graph}
    assert {kinds[name] for name in ("Pow", "ReduceMean", "Sqrt", "Div")} == {ir.DataType.FLOAT}
    assert {kinds[name] for name in ("Where", "MatMul", "Attention")} == {ir.DataType.BFLOAT16}
    lift_graph(source, tmp_path / "source.lifted.onnx")
    lift_graph(result, tmp_path / "result.lifted.onnx")
    one, two = open_graph(tmp_path / "source.lifted.onnx"), open_graph(tmp_path / "result.lifted.onnx")
    assert max(difference(one, two, call) for call in CALLS) <= 1e-5


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A graph with the dense mask, and with the indices."""
    model = load_graph(tiny_graph("llama"))
    index_mask(model, PATH)
    path = checked(model, tmp_path_factory.mktemp("masked") / "model.onnx")
    return open_graph(tiny_graph("llama")), open_graph(path)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    batch, past, new = draw(st.integers(1, 3)), draw(st.integers(0, 9)), draw(st.integers(1, 6))
    below = draw(arrays(np.int64, (batch, new), elements=st.integers(1, past + new)))
    slots = draw(arrays(np.int64, (batch, new, PATH), elements=st.integers(-1, past + new - 1)))
    return make_call(below, slots, past)


@settings(deadline=None, max_examples=50)
@given(call=calls())
def test_any_mask_by_indices_is_the_dense_mask(masked: tuple[Any, Any], call: Call) -> None:
    assert difference(*masked, call) == 0


def test_the_index_mask_replaces_the_input(masked: tuple[Any, Any]) -> None:
    inputs = {value.name: value for value in masked[1].get_inputs()}
    assert list(inputs)[:5] == ["input_ids", "position_ids", "visible_below", "visible_slots", "logit_rows"]
    assert inputs["visible_below"].shape == ["batch", "sequence"]
    assert inputs["visible_slots"].shape == ["batch", "sequence", PATH]
    assert {inputs[name].type for name in ("visible_below", "visible_slots")} == {"tensor(int64)"}


def test_masks_that_cannot_be_replaced_are_refused() -> None:
    model = load_graph(tiny_graph("llama"))
    with pytest.raises(EngineError, match="at least 1"):
        index_mask(model, 0)
    index_mask(model, 1)
    with pytest.raises(EngineError, match="no input attention_mask"):
        index_mask(model, PATH)


def test_a_mask_of_one_slot_and_other_readers_of_the_mask(tmp_path: Path) -> None:
    model = load_graph(tiny_graph("llama"))
    mask = next(value for value in model.graph.inputs if value.name == "attention_mask")
    reader = next(
        node for node in mask.consumers() if node.op_type == "Shape" and node.attributes.get_int("start") == 2
    )
    reader.attributes["start"] = ir.AttrInt64("start", -2)  # the same axis, said in another way
    reader.attributes["end"] = ir.AttrInt64("end", -1)
    index_mask(model, 1)
    result = open_graph(checked(model, tmp_path / "model.onnx"))
    for call in CALLS:
        narrow = make_call(call.below, call.slots[..., :1], call.past)
        assert difference(open_graph(tiny_graph("llama")), result, narrow) == 0


def test_folding_leaves_no_transpose_of_a_weight(tmp_path: Path) -> None:
    model = load_graph(tiny_graph("llama"))
    before = {name for name, value in model.graph.initializers.items() if value.dtype == ir.DataType.FLOAT}
    fold_weights(model)
    assert all(node.inputs[0].const_value is None for node in model.graph if node.op_type == "Transpose")
    assert all(node.inputs[1].const_value is not None for node in model.graph if node.op_type == "MatMul")
    after = {name for name, value in model.graph.initializers.items() if value.dtype == ir.DataType.FLOAT}
    assert before < after  # a tied head: the embedding stays
    assert {name.removesuffix(".transposed.1.0") for name in after - before} < before


def test_a_weight_that_only_transposes_read_is_dropped(tmp_path: Path) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 23]> agraph (float[n, 3] x) => (float[n, 2] y, float[n, 2] z) '
        "<float[2, 3] w> { a = Transpose <perm = [1, 0]> (w) b = Transpose (w) y = MatMul(x, a) z = MatMul(x, b) }"
    )
    value = next(node.inputs[0] for node in model.graph if node.op_type == "Transpose")
    assert value is not None
    value.const_value = ir.tensor(weight, name="w")
    model.graph.initializers["w"] = value
    fold_weights(model)
    assert [node.op_type for node in model.graph] == ["MatMul", "MatMul"]
    (name,) = model.graph.initializers  # shared
    assert np.array_equal(model.graph.initializers[name].const_value.numpy(), weight.T)
    save_graph(model, tmp_path / "model.onnx")
    x = np.ones((4, 3), np.float32)
    assert np.array_equal(open_graph(tmp_path / "model.onnx").run(None, {"x": x})[1], x @ weight.T)


def test_weights_beside_the_graph(tmp_path: Path) -> None:
    model = load_graph(tiny_graph("llama"))
    save_graph(model, tmp_path / "model.onnx", external_bytes=0)
    assert (tmp_path / "model.onnx.data").stat().st_size > (tmp_path / "model.onnx").stat().st_size / 2
    again = load_graph(tmp_path / "model.onnx")
    fold_weights(again)
    decompose(again)
    save_graph(again, tmp_path / "again.onnx", external_bytes=0)
    found = difference(open_graph(tiny_graph("llama")), open_graph(tmp_path / "again.onnx"), CALLS[-1])
    assert found <= 1e-5


@pytest.mark.parametrize(
    ("operator", "name", "value", "message"),
    [
        ("Attention", "softcap", 30.0, "softcap 30.0; expected 0"),
        ("Attention", "is_causal", 1, "is_causal 1; expected 0"),
        ("RotaryEmbedding", "interleaved", 1, "'interleaved': 1"),
        ("RotaryEmbedding", "rotary_embedding_dim", 4, "'rotary_embedding_dim': 4"),
        ("RMSNormalization", "stash_type", 10, "stash_type 10"),
        ("RMSNormalization", "axis", 2, "axis 2"),
    ],
)
def test_unknown_forms_are_refused(operator: str, name: str, value: float, message: str) -> None:
    model = load_graph(tiny_graph("llama"))
    node = next(node for node in model.graph if node.op_type == operator)
    node.attributes[name] = ir.AttrFloat32(name, value) if isinstance(value, float) else ir.AttrInt64(name, value)
    with pytest.raises(EngineError, match=message):
        decompose(model)


def test_bounds_of_whole_numbers_are_written_out_and_those_of_others_left(tmp_path: Path) -> None:
    text = "{ far = Clip (x, low, high) near = Clip (y, zero, one) }"
    model = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["": 23]> g (int64[n] x, int64 low, int64 high, float[n] y, float zero, '
        f"float one) => (int64[n] far, float[n] near) {text}"
    )
    decompose(model)
    assert operators(model) == {"Max": 1, "Min": 1, "Clip": 1}
    save_graph(model, tmp_path / "model.onnx")
    feed = {"x": np.array([-9, 0, 9]), "low": np.array(-2), "high": np.array(3), "y": np.zeros(3, np.float32)}
    feed |= {"zero": np.float32(0), "one": np.float32(1)}
    far, _ = open_graph(tmp_path / "model.onnx").run(None, {name: np.asarray(value) for name, value in feed.items()})
    assert far.tolist() == [-2, 0, 3]
