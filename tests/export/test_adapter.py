"""LoRA adapters: merged faithfully, or refused with the remedy."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapter_cases import BOTH, IDENTIFIERS, make_adapter
from specbeam.catalog.errors import ExportError
from specbeam.export import export_bundle
from specbeam.export.checkpoint import Checkpoint

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
