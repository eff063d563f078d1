"""What export refuses, with the reason; and the neighbours of it that work."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbeam.catalog.errors import ExportError, SpecBeamError
from specbeam.export import export_bundle
from specbeam.export.checkpoint import Checkpoint
from tiny_models import (
    identifier_tokens,
    make_text_tokenizer,
    make_tokenizer,
    text_catalog,
    tiny_catalog,
    tiny_checkpoint,
)

IDENTIFIERS = identifier_tokens()


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "'llama' of a T5For"),
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


def test_half_a_weights_file_is_refused(tmp_path: Path) -> None:
    weights = tiny_checkpoint(tmp_path / "target") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(SpecBeamError, match=r"could not be loaded: .*incomplete"):
        Checkpoint.open(tmp_path / "target").load("fp32", identifier_tokens())


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
    with pytest.raises(ExportError, match=r"config\.json: Input data was truncated"):
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


def test_draft_and_target_must_take_text_apart_alike(tmp_path: Path) -> None:
    target = tiny_checkpoint(tmp_path / "target", tokenizer=make_text_tokenizer())
    draft = tiny_checkpoint(tmp_path / "draft", tokenizer=make_text_tokenizer(vocabulary=290))
    index = text_catalog(tmp_path / "index.json")
    with pytest.raises(
        ExportError, match=r"identifiers of \d+ items different ids, item '\d+' \('.*'\) .* target \["
    ) as caught:
        export_bundle(target, draft, index, None, tmp_path / "bundle")
    assert "Train both with one tokenizer" in str(caught.value)
    make_tokenizer(IDENTIFIERS).save_pretrained(draft)
    with pytest.raises(ExportError, match=r"draft's tokenizer does not fit the catalog: .* does not know the text"):
        export_bundle(target, draft, index, None, tmp_path / "bundle")


def test_draft_and_target_must_share_the_end_token(tmp_path: Path, index: Path) -> None:
    target, draft = tiny_checkpoint(tmp_path / "target"), tiny_checkpoint(tmp_path / "draft")
    for eos, got in (("<pad>", r"'<pad>' \(1\)"), (None, r"None \(None\)")):
        tokenizer = make_tokenizer(IDENTIFIERS)
        tokenizer.eos_token = eos
        tokenizer.save_pretrained(draft)
        message = rf"eos token '</s>' \(3\), the draft's eos token is {got}\. They must have one id"
        with pytest.raises(ExportError, match=message):
            export_bundle(target, draft, index, None, tmp_path / "bundle", end_token="always")


def test_an_end_token_that_is_needed_and_absent(tmp_path: Path) -> None:
    index = tiny_catalog(tmp_path / "index.json", ragged=True)
    checkpoint = tiny_checkpoint(tmp_path / "target")
    with pytest.raises(SpecBeamError, match=r"are the beginning of others .* --end-token auto"):
        export_bundle(checkpoint, None, index, None, tmp_path / "bundle", end_token="never")
    tokenizer = make_tokenizer(IDENTIFIERS)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(checkpoint)
    with pytest.raises(
        SpecBeamError, match=r"identifiers of 1 to 3 tokens are to end with .* eos token, but it has none"
    ):
        export_bundle(checkpoint, None, index, None, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"precision": "fp8"}, "The precision 'fp8' is unknown; choose one of fp32, "),
        ({"end_token": "sometimes"}, "The end token 'sometimes' is unknown; choose one of auto, always, never"),
        ({"scoring": "fair"}, "The scoring 'fair' is unknown; choose one of full, constrained"),
        ({"max_top_k": 0}, "The longest list that requests may ask for is 0; expected at least 1"),
    ],
)
def test_options_that_do_not_exist(tmp_path: Path, option: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        export_bundle(tmp_path, None, tmp_path, None, tmp_path / "bundle", **option)


def test_a_context_too_short_for_one_item_is_refused(tmp_path: Path, index: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target", max_position_embeddings=5)
    with pytest.raises(SpecBeamError, match="context"):
        export_bundle(checkpoint, None, index, None, tmp_path / "bundle")
