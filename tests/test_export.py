"""Export: graphs that fulfil the contract and agree with their models, and refusals that say why."""

import json
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import AttentionInterface

from specrec.catalog.errors import ExportError, SpecRecError
from specrec.catalog.files import sha256
from specrec.catalog.items import Catalog
from specrec.catalog.trie import ItemTrie
from specrec.engines.torch import ATTENTION, GraphModule, masked_attention
from specrec.export import check_parity, export_bundle
from specrec.export.checkpoint import Checkpoint
from specrec.export.onnx import export_graph
from tiny_models import identifier_tokens, make_model, make_tokenizer, tiny_catalog, tiny_checkpoint

IDENTIFIERS = identifier_tokens()


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tiny_catalog(tmp_path / "index.json")


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))


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
    assert found == graphs | {"manifest.json", "catalog/items.jsonl", "catalog/trie.safetensors"}
    assert {name: (facts.sha256, facts.bytes) for name, facts in manifest.files.items()} == {
        name: (sha256(output / name), (output / name).stat().st_size) for name in found - {"manifest.json"}
    }
    assert manifest.max_prompt_tokens == 96 - 3 + 1
    assert manifest.draft is not None
    assert (manifest.draft.layers, manifest.target.layers) == (1, 2)
    assert len({path.stat().st_mode for path in output.rglob("*") if path.is_file()}) == 1
    assert json.loads((output / "manifest.json").read_text())["prompt"]["prefix_ids"] == [2]
    with pytest.raises(SpecRecError, match="exists already"):
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
        monkeypatch.setattr("specrec.export.onnx.GraphModule", WrongGraph)
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


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "encoder-decoder"),
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel.*Supported are LlamaForCausalLM, Qwen2ForCausalLM"),
        ({"architectures": "absent"}, "no architecture"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "its own code"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised .gptq."),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "RoPE scaling dynamic"),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target")
    edit_config(checkpoint, **changes)
    with pytest.raises(ExportError, match=reason):
        Checkpoint.open(checkpoint)


def test_longrope_is_refused(tmp_path: Path) -> None:
    factors = [1.0] * 4
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": factors, "long_factor": factors, "factor": 2.0}
    checkpoint = tiny_checkpoint(tmp_path / "target")
    edit_config(checkpoint, rope_parameters=rope | {"original_max_position_embeddings": 64})
    with pytest.raises(ExportError, match="RoPE scaling longrope"):
        Checkpoint.open(checkpoint)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_static_rope_scaling_is_exported(tmp_path: Path, index: Path, rope: dict[str, Any]) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target", num_hidden_layers=1, rope_parameters=rope | {"rope_theta": 1e4})
    plain = tiny_checkpoint(tmp_path / "plain", num_hidden_layers=1)
    export_bundle(checkpoint, None, index, None, tmp_path / "bundle")  # ends with the parity check
    tokens = torch.arange(2, 20)[None]
    logits = [AutoModelForCausalLM.from_pretrained(path)(tokens).logits for path in (checkpoint, plain)]
    assert not torch.allclose(*logits, atol=1e-2)  # the scaling does something


@pytest.mark.parametrize(
    ("kind", "settings", "refused"),
    [
        ("mistral", {"sliding_window": 64}, True),
        ("mistral", {"sliding_window": 128}, False),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 1}, True),
        ("qwen3", {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 0}, True),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 2}, False),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": False}, False),
    ],
)
def test_sliding_windows(tmp_path: Path, kind: str, settings: dict[str, Any], refused: bool) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target", kind, **settings)
    if refused:
        with pytest.raises(ExportError, match=r'window of 64 .* context of 128.*"max_position_embeddings": 64'):
            Checkpoint.open(checkpoint)
        edit_config(checkpoint, max_position_embeddings=64)  # the remedy
    assert Checkpoint.open(checkpoint).config.sliding_window is None


def test_a_window_as_long_as_the_context_is_exported(tmp_path: Path, index: Path) -> None:
    checkpoint = tiny_checkpoint(
        tmp_path / "target", "mistral", sliding_window=40, max_position_embeddings=40, num_hidden_layers=1
    )
    export_bundle(checkpoint, None, index, None, tmp_path / "bundle")
    assert json.loads((tmp_path / "bundle/target/checkpoint/config.json").read_text())["sliding_window"] is None


def rewrite_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: w.pop("model.layers.1.mlp.up_proj.weight"), "1 missing .first: model.layers.1.mlp.up_proj.weight"),
        (lambda w: w.pop("lm_head.weight"), "1 missing .first: lm_head.weight"),
        (lambda w: w.update(extra=torch.ones(2)), "1 unexpected .first: extra"),
        (lambda w: w.update({"model.norm.weight": torch.ones(7)}), "1 mismatched .first: .*norm.weight"),
        (lambda w: w["model.norm.weight"].fill_(torch.nan), "not finite"),
    ],
    ids=["missing", "head", "unexpected", "shape", "nan"],
)
def test_incomplete_weights_are_refused(tmp_path: Path, change: Callable[[Any], None], reason: str) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target")
    rewrite_weights(checkpoint, change)
    with pytest.raises(ExportError, match=reason):
        Checkpoint.open(checkpoint).load("fp32", IDENTIFIERS)


def test_weights_that_overflow_in_fp16_are_refused(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target")
    rewrite_weights(checkpoint, lambda weights: weights["model.norm.weight"].fill_(1e5))
    with pytest.raises(ExportError, match=r"not finite in fp16 .*--precision fp32 or bf16"):
        Checkpoint.open(checkpoint).load("fp16", IDENTIFIERS)


def test_directories_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no config\.json"):
        Checkpoint.open(tmp_path)
    checkpoint = tiny_checkpoint(tmp_path / "target")
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "tokenizer_config.json").unlink()
    with pytest.raises(ExportError, match="no tokenizer"):
        Checkpoint.open(checkpoint)
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(ExportError, match=r"only pickled weights .pytorch_model\.bin.*save_pretrained"):
        Checkpoint.open(checkpoint)
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(ExportError, match="not JSON"):
        Checkpoint.open(checkpoint)


def test_tokens_without_embedding_rows_are_refused(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target", spare_rows=-4)
    with pytest.raises(ExportError, match=r"4 tokens without embedding rows .*<c_2> \(24\).*modules_to_save"):
        Checkpoint.open(checkpoint)


def test_draft_and_target_must_share_the_tokens(tmp_path: Path, index: Path) -> None:
    target = tiny_checkpoint(tmp_path / "target")
    draft = tiny_checkpoint(tmp_path / "draft")
    make_tokenizer(["<a_1>", "<a_0>", *IDENTIFIERS[2:-1]]).save_pretrained(draft)
    with pytest.raises(ExportError) as caught:
        export_bundle(target, draft, index, None, tmp_path / "bundle")
    message = str(caught.value)
    assert "1 are missing in the draft's tokenizer: <c_5>" in message
    assert "2 have different ids: <a_0> (target 10, draft 11), <a_1> (target 11, draft 10)" in message
    assert not (tmp_path / "bundle").exists()


def test_a_context_too_short_for_one_item_is_refused(tmp_path: Path, index: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target", max_position_embeddings=5)
    with pytest.raises(SpecRecError, match="context"):
        export_bundle(checkpoint, None, index, None, tmp_path / "bundle")


def make_adapter(
    folder: Path, *, tied: bool = False, resize: bool = True, spare: int = 0, **settings: Any
) -> tuple[Path, torch.nn.Module]:
    """A LoRA adapter with new identifier tokens and random weights, and the model it was saved from."""
    from peft import LoraConfig, get_peft_model

    words = make_tokenizer([])
    model = make_model(rows=len(words) + spare, tied=tied)
    model.save_pretrained(folder / "base")
    words.save_pretrained(folder / "base")
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    tokenizer = make_tokenizer(IDENTIFIERS)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        if resize:
            model.resize_token_embeddings(len(tokenizer))
        wrapped = get_peft_model(model, LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], **settings}))
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.2)
        wrapped.eval().save_pretrained(folder / "adapter")
    tokenizer.save_pretrained(folder / "adapter")
    return folder / "adapter", wrapped


BOTH = ["embed_tokens", "lm_head"]
NEW = list(range(10, 28))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": BOTH},
        {"modules_to_save": ["embed_tokens"]},  # resized: peft saves the head, too
        {},  # resized: peft saves both matrices
        {"target_modules": ["q_proj", *BOTH]},
        {"target_modules": ["q_proj", *BOTH], "resize": False, "spare": 18},
        {"trainable_token_indices": NEW},
        {"trainable_token_indices": dict.fromkeys(BOTH, NEW)},
        {"trainable_token_indices": dict.fromkeys(BOTH, NEW), "resize": False, "spare": 18},
    ],
    ids=["both", "embedding", "auto", "lora", "lora-spare", "tokens", "tokens-both", "tokens-spare"],
)
def test_adapters_are_merged_faithfully(tmp_path: Path, settings: dict[str, Any], tied: bool) -> None:
    adapter, trained = make_adapter(tmp_path, tied=tied, **settings)
    merged = Checkpoint.open(adapter).load("fp32", IDENTIFIERS)
    tokens = torch.tensor([[2, 5, 10, 11, 20, 27]])
    with torch.inference_mode():
        expected, got = trained(input_ids=tokens).logits, merged(input_ids=tokens).logits
        merged.save_pretrained(tmp_path / "merged")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(input_ids=tokens).logits
    assert torch.allclose(got, expected, atol=1e-4)
    assert torch.allclose(again, expected, atol=1e-4)  # the bundle's checkpoint is the same model


def test_an_adapter_is_exported(tmp_path: Path, index: Path) -> None:
    adapter, _ = make_adapter(tmp_path, tied=True, modules_to_save=BOTH)
    manifest = export_bundle(adapter, None, index, None, tmp_path / "bundle")
    assert manifest.target.vocabulary == 28
    assert json.loads((tmp_path / "bundle/target/checkpoint/config.json").read_text())["vocab_size"] == 28


@pytest.mark.parametrize(
    ("settings", "module"),
    [
        ({}, "embed_tokens"),
        ({"modules_to_save": ["embed_tokens"]}, "lm_head"),
        ({"trainable_token_indices": NEW[1:]}, "embed_tokens"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "lm_head"),
    ],
    ids=["neither", "no head", "one token short", "lora without head"],
)
def test_adapters_without_the_new_rows_are_refused(tmp_path: Path, settings: dict[str, Any], module: str) -> None:
    adapter, _ = make_adapter(tmp_path, resize=False, spare=18, **settings)
    with pytest.raises(ExportError, match=f"rows of {module}: <a_0> .10.*modules_to_save="):
        Checkpoint.open(adapter).load("fp32", IDENTIFIERS)


def test_adapters_that_cannot_be_merged(tmp_path: Path) -> None:
    adapter, _ = make_adapter(tmp_path, modules_to_save=BOTH)
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": "someone/model"}))
    with pytest.raises(ExportError, match=r"'someone/model'.* not a local directory"):
        Checkpoint.open(adapter)
    path.write_text(json.dumps(config | {"peft_type": "IA3"}))
    with pytest.raises(ExportError, match="IA3"):
        Checkpoint.open(adapter)
    path.write_text(json.dumps(config | {"target_modules": ["q_proj"]}))
    with pytest.raises(ExportError, match="left over"):
        Checkpoint.open(adapter).load("fp32", IDENTIFIERS)
    path.write_text(json.dumps(config | {"target_modules": ["q_proj", "k_proj", "v_proj"]}))
    with pytest.raises(ExportError, match="tensors missing"):
        Checkpoint.open(adapter).load("fp32", IDENTIFIERS)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ExportError, match="pickles are not loaded"):
        Checkpoint.open(adapter)
