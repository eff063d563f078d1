"""What large checkpoints need: shards, weights beside the graph, memory that holds them once, progress."""

import gc
import weakref
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from transformers import AutoModelForCausalLM, PreTrainedModel

from specbeam.export import export_bundle, parity
from specbeam.export import model as exporting
from specbeam.export.checkpoint import Checkpoint
from specbeam.graphs.files import ROWS, load_graph, save_graph
from specbeam.graphs.write import TILE, laid_out
from tiny_models import tiny_checkpoint


def sharded(whole: Path, folder: Path) -> Path:
    """A checkpoint in many files."""
    Checkpoint.open(whole).tokenizer.save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(folder, max_shard_size="8KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    return folder


def test_shards_give_the_graph_of_the_whole(tmp_path: Path, index: Path) -> None:
    whole = tiny_checkpoint(tmp_path / "whole")
    files = []
    for name, checkpoint in (("one", whole), ("several", sharded(whole, tmp_path / "shards"))):
        export_bundle(checkpoint, None, index, None, tmp_path / name, external_bytes=0, checkpoints=False)
        files.append((tmp_path / name / "target/model.onnx.data").read_bytes())
    assert files[0] == files[1]


def test_the_model_is_gone_when_its_graph_is_opened(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, alive = list[weakref.ref[Any]](), list[bool]()
    load, compare = Checkpoint.load, parity.compare_graph

    def watched(self: Checkpoint, *more: Any) -> PreTrainedModel:
        model = load(self, *more)
        models.extend(map(weakref.ref, model.parameters()))
        return model

    def looked(*more: Any, **expected: Any) -> Any:
        gc.collect()
        alive.extend(one() is not None for one in models)
        return compare(*more, **expected)

    monkeypatch.setattr(Checkpoint, "load", watched)
    monkeypatch.setattr(parity, "compare_graph", looked)
    export_bundle(tiny_checkpoint(tmp_path / "target"), None, index, None, tmp_path / "bundle")
    assert len(alive) > 20
    assert not any(alive)


def test_every_gigabyte_is_told_of(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "GIGABYTE", 20_000)
    stages = list[str]()
    export_bundle(
        tiny_checkpoint(tmp_path / "target"),
        None,
        index,
        None,
        tmp_path / "b",
        external_bytes=0,
        progress=stages.append,
    )
    written = [stage for stage in stages if "weights:" in stage]
    total = (tmp_path / "b/target/model.onnx.data").stat().st_size / 20_000
    assert len(written) == pytest.approx(total, abs=2)
    assert len(written) > 2
    assert written[0] == f"writing the target's weights: 0 of {total:.1f} GB"


@pytest.mark.parametrize("dtype", [np.float32, np.int8, ml_dtypes.bfloat16])
def test_a_matrix_is_turned(dtype: Any) -> None:
    table = np.arange((TILE + 5) * (2 * TILE + 1)).reshape(TILE + 5, -1).astype(dtype)
    turned = laid_out(table.T)
    assert turned.flags.c_contiguous
    assert turned.dtype == dtype
    assert np.array_equal(turned, table.T)
    assert np.shares_memory(laid_out(table), table)  # what lies so already is not copied
    assert laid_out(np.ones((2, 3, 4)).transpose(2, 0, 1)).flags.c_contiguous
    assert laid_out(np.float32(3)[()].reshape(())).shape == ()


def test_transposed_weights_are_written_row_by_row(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((TILE + 9, 2 * ROWS + 3)).astype(np.float32).T
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 2 * ROWS + 3]))
    weight = ir.Value(name="w", const_value=ir.Tensor(table, name="w"))
    node = ir.node("MatMul", [x, weight])
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 20}, name="g")
    told = list[tuple[int, int]]()
    path = tmp_path / "g.onnx"
    save_graph(ir.Model(graph, ir_version=10), path, external_bytes=0, progress=lambda *step: told.append(step))
    assert told == [(0, table.nbytes)]
    stored = load_graph(path).graph.initializers["w"].const_value
    assert stored is not None
    assert np.array_equal(stored.numpy(), table)
    assert np.array_equal(onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0]), table)
