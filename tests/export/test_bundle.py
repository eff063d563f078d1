"""Export: graphs that fulfil the contract and agree with their models, and refusals that say why."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from transformers.modeling_utils import AttentionInterface

from specbeam.catalog.errors import ExportError, SpecBeamError
from specbeam.catalog.files import sha256
from specbeam.catalog.items import Catalog
from specbeam.catalog.trie import PAD, ItemTrie
from specbeam.engines.attention import ATTENTION, masked_attention
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.torch import GraphModule
from specbeam.export import check_parity, export_bundle
from specbeam.export.checkpoint import Checkpoint
from specbeam.export.onnx import export_graph
from tiny_models import (
    END,
    identifier_tokens,
    make_text_tokenizer,
    make_tokenizer,
    text_catalog,
    tiny_catalog,
    tiny_checkpoint,
)

IDENTIFIERS = identifier_tokens()


def axes(values: Any) -> dict[str, tuple[str | int, ...]]:
    return {v.name: tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}


@pytest.mark.parametrize(
    ("kind", "tied"), [("llama", False), ("llama", True), ("qwen2", True), ("qwen3", False), ("mistral", False)]
)
def test_the_graph_fulfils_the_contract(tmp_path: Path, index: Path, kind: str, tied: bool) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target", kind, tied=tied)
    stages: list[str] = []
    manifest = export_bundle(checkpoint, None, index, None, tmp_path / "bundle", progress=stages.append)
    graph = onnx.load(tmp_path / "bundle/target/model.onnx")
    columns = manifest.catalog_tokens
    wanted: dict[str, tuple[str | int, ...]] = {
        "input_ids": ("batch", "sequence"),
        "position_ids": ("batch", "sequence"),
        "attention_mask": ("batch", 1, "sequence", "past+sequence"),
        "logit_rows": ("batch", "rows"),
    }
    pasts = [f"{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    assert axes(graph.graph.input) == wanted | {f"past_key_values.{p}": ("batch", 2, "past", 8) for p in pasts}
    assert axes(graph.graph.output) == {"logprobs": ("batch", "rows", columns)} | {
        f"present.{p}": ("batch", 2, "past+sequence", 8) for p in pasts
    }
    nodes = Counter(node.op_type for node in graph.graph.node)
    assert nodes["Attention"] == 2
    assert nodes["RotaryEmbedding"] == 4
    assert nodes["RMSNormalization"] == (9 if kind == "qwen3" else 5)
    assert not nodes["Tile"]
    assert not nodes["Expand"]  # grouped heads are not repeated
    stored = sum(int(np.prod(weight.dims)) for weight in graph.graph.initializer if weight.data_type == 1)
    assert stored <= manifest.target.parameters + 100  # each weight once, a tied head too
    assert graph.opset_import[0].version == manifest.opset >= 23
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)  # no paths of this machine
    assert any("agrees" in stage for stage in stages)


def test_the_bundle_is_complete_and_hashed(tmp_path: Path, index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = tiny_checkpoint(tmp_path / "target", max_position_embeddings=128)
    draft = tiny_checkpoint(tmp_path / "draft", num_hidden_layers=1, seed=1, max_position_embeddings=96)
    capfd.readouterr()
    output = tmp_path / "bundle"
    manifest = export_bundle(target, draft, index, None, output, external_bytes=0, checkpoints=False)
    assert capfd.readouterr() == ("", "")
    found = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    graphs = {f"{role}/model.onnx{end}" for role in ("target", "draft") for end in ("", ".data")}
    assert found == graphs | {"manifest.json", "catalog/items.safetensors", "catalog/trie.safetensors"}
    assert {name: (facts.sha256, facts.bytes) for name, facts in manifest.files.items()} == {
        name: (sha256(output / name), (output / name).stat().st_size) for name in found - {"manifest.json"}
    }
    assert manifest.max_prompt_tokens == 96 - 3 + 1
    assert manifest.draft is not None
    assert (manifest.draft.layers, manifest.target.layers) == (1, 2)
    assert len({path.stat().st_mode for path in output.rglob("*") if path.is_file()}) == 1
    assert json.loads((output / "manifest.json").read_text())["prompt"]["prefix_ids"] == [2]
    with pytest.raises(SpecBeamError, match="exists already"):
        export_bundle(target, draft, index, None, output)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision(tmp_path: Path, index: Path, precision: str) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target", "qwen2", tied=True)
    stages: list[str] = []
    export_bundle(checkpoint, None, index, None, tmp_path / "bundle", precision=precision, progress=stages.append)
    graph = onnx.load(tmp_path / "bundle/target/model.onnx")
    wanted = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[precision]
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.graph.input, *graph.graph.output)}
    ints = {"input_ids", "position_ids", "logit_rows"}
    assert {types.pop(name) for name in ints} == {onnx.TensorProto.INT64}
    assert types.pop("logprobs") == onnx.TensorProto.FLOAT
    assert set(types.values()) == {wanted}
    weights = [weight for weight in graph.graph.initializer if len(weight.dims) == 2]
    assert {weight.data_type for weight in weights} == {wanted}
    summary = next(stage for stage in stages if "agrees" in stage)
    assert "fp32 logprobs" in summary  # the lifted graph
    assert ("fp16 logprobs" in summary) == (precision == "fp16")  # and the graph itself where the CPU can run it


def test_identifiers_of_unequal_length(tmp_path: Path) -> None:
    index = tiny_catalog(tmp_path / "index.json", ragged=True)
    target, draft = tiny_checkpoint(tmp_path / "target"), tiny_checkpoint(tmp_path / "draft", num_hidden_layers=1)
    stages: list[str] = []
    manifest = export_bundle(target, draft, index, None, tmp_path / "bundle", progress=stages.append)
    bundle = Bundle.open(tmp_path / "bundle")
    catalog, trie = bundle.catalog(), bundle.trie()
    assert (manifest.end_token, manifest.identifier_length, manifest.max_prompt_tokens) == (END, 4, 128 - 4 + 1)
    assert manifest.catalog_tokens == len(catalog.tokens) + 1
    vocabulary = make_tokenizer(IDENTIFIERS).get_vocab()
    own = [[vocabulary[token] for token in tokens] for tokens in catalog.identifiers]
    rows = [[token for token in row if token != PAD] for row in trie.item_tokens().tolist()]
    assert rows == [[*tokens, END] for tokens in own]
    prompt = bundle.prompts(trie).encode([3, 1, 7])
    assert prompt.ids.tolist() == [2, *own[3], *own[1], *own[7]]
    assert any("identifiers of 1 to 3 tokens, the end token 3" in stage for stage in stages)
    shape = onnx.load(tmp_path / "bundle/target/model.onnx").graph.output[0].type.tensor_type.shape
    assert shape.dim[2].dim_value == manifest.catalog_tokens


def test_identifiers_that_are_text(tmp_path: Path) -> None:
    tokenizer = make_text_tokenizer(corpus=["User bought: Next:"])
    target = tiny_checkpoint(tmp_path / "target", tokenizer=tokenizer)
    draft = tiny_checkpoint(tmp_path / "draft", tokenizer=tokenizer, num_hidden_layers=1)
    index = text_catalog(tmp_path / "index.json")
    manifest = export_bundle(
        target, draft, index, None, tmp_path / "bundle",
        prompt="User bought:{history}. Next:", separator=",", end_token="always", scoring="constrained", max_top_k=50,
    )  # fmt: skip
    assert (manifest.end_token, manifest.scoring, manifest.max_top_k) == (END, "constrained", 50)
    bundle = Bundle.open(tmp_path / "bundle")
    catalog, trie = bundle.catalog(), bundle.trie()
    names = ["".join(tokens) for tokens in catalog.identifiers]
    expected = [[*tokenizer(name, add_special_tokens=False)["input_ids"], END] for name in names]
    assert [[token for token in row if token != PAD] for row in trie.item_tokens().tolist()] == expected
    assert manifest.identifier_length == max(map(len, expected)) > 4
    text = f"User bought:{names[5]},{names[0]},{names[31]}. Next:"
    assert bundle.prompts(trie).encode([5, 0, 31]).ids.tolist() == tokenizer(text)["input_ids"]


def blind(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **_: Any) -> Any:
    return masked_attention(module, query, key, value, attention_mask * 0, scaling)


class WrongGraph(GraphModule):
    """A wrapper with a fault in one of its inputs."""

    fault = ""

    def forward(self, input_ids: Any, position_ids: Any, attention_mask: Any, logit_rows: Any, past: Any) -> Any:
        if self.fault == "positions":
            position_ids = position_ids // 2 * 2
        if self.fault == "rows":
            logit_rows = logit_rows.flip(1)
        if self.fault == "past":
            past = [tensor * 0.99 for tensor in past]
        if self.fault == "tokens":
            input_ids = (input_ids - 1).abs()
        return super().forward(input_ids, position_ids, attention_mask, logit_rows, past)


@pytest.mark.parametrize("fault", ["mask", "positions", "rows", "past", "tokens"])
def test_a_wrong_graph_fails_the_export(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target", num_hidden_layers=1)
    if fault == "mask":
        monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, blind)
    else:
        monkeypatch.setattr(WrongGraph, "fault", fault)
        monkeypatch.setattr("specbeam.export.onnx.GraphModule", WrongGraph)
    before = set(tmp_path.iterdir())
    with pytest.raises(ExportError, match="differs from the LlamaForCausalLM"):
        export_bundle(checkpoint, None, index, None, tmp_path / "bundle")
    assert set(tmp_path.iterdir()) == before  # nothing half-written


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_single_wrong_weight_is_found(tmp_path: Path, index: Path, precision: str) -> None:
    checkpoint = Checkpoint.open(tiny_checkpoint(tmp_path / "target"))
    catalog = Catalog.load(index, None)
    vocabulary = ItemTrie.build(catalog.token_ids(checkpoint.tokenizer.get_vocab())).vocabulary
    path = tmp_path / "model.onnx"
    model = checkpoint.load(precision, catalog.tokens)
    export_graph(model, vocabulary, path)
    report = check_parity(path, model, vocabulary, precision)
    assert all(difference.absolute < 1e-3 for difference in report.differences.values())
    assert {"logprobs", "present"} == {kind for _, kind in report.differences}
    graph = ir.load(path)
    weight = next(v for v in graph.graph.initializers.values() if v.const_value is not None and len(v.shape or ()) == 2)
    assert weight.const_value is not None
    values = weight.const_value.numpy().copy()
    values[:, 0] += 0.25
    weight.const_value = ir.tensor(values, dtype=weight.dtype)
    ir.save(graph, path)
    with pytest.raises(ExportError, match=r"differs from .* (logprobs|present) by [\d.]+ .* at most 0\.0001"):
        check_parity(path, model, vocabulary, precision)
