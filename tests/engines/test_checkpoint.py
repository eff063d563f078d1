"""Files of a checkpoint that are damaged, or that say what cannot be: one of our errors, which names the file."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import bad, good
from specbeam.align.training.configs import find_config
from specbeam.catalog.errors import EngineError, ExportError, SpecBeamError, is_fault, said
from specbeam.catalog.extras import install
from specbeam.engines.checkpoint_guard import check_checkpoint
from specbeam.engines.generation import not_applied, token_settings
from specbeam.engines.torch import load_model
from specbeam.export import export_bundle
from specbeam.export.checkpoint import Checkpoint
from specbeam.export.text import export_text
from specbeam.export.tokenizer import load_tokenizer
from tiny_models import (
    make_text_tokenizer,
    make_tokenizer,
    pieces_checkpoint,
    tiny_catalog,
    tiny_checkpoint,
)

IDENTIFIERS = ["<a_0>", "<a_1>"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "target")


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rope_parameters": 2147}, r"Expected `object \| null`, got `int` - at `\$\.rope_parameters`"),
        ({"rope_parameters": {"rope_theta": "a"}}, r"Expected `float \| null`.*`\$\.rope_theta` of `rope_parameters`"),
        ({"rope_parameters": {"rope_type": None}}, r"Expected `str`, got `null` - at `\$\.rope_type`"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "no valid configuration: KeyError.*Missing required keys"),
        ({"head_dim": 0}, r"Expected `int` >= 1 - at `\$\.head_dim`"),
        ({"head_dim": 7}, "the width of a head is odd"),
        ({"hidden_size": "x"}, r"Expected `int \| null`, got `str` - at `\$\.hidden_size`"),
        ({"hidden_size": 31}, r"hidden size \(31\) is not a multiple of the number of attention heads \(4\)"),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is no multiple of num_key_value_heads 3"),
        ({"num_attention_heads": 0}, r"at `\$\.num_attention_heads`"),
        ({"num_hidden_layers": -1}, r"at `\$\.num_hidden_layers`"),
        ({"rms_norm_eps": None}, r"at `\$\.rms_norm_eps`"),
        ({"layer_types": ["full_attention"]}, "layer_types names 1 of 2 layers"),
        ({"model_type": "gpt2"}, "says model_type 'gpt2' of a LlamaForCausalLM; expected a GPT2LMHeadModel"),
        ({"architectures": 5}, r"at `\$\.architectures`"),
        ({"quantization_config": []}, r"at `\$\.quantization_config`"),
        ({"dtype": "foo"}, "no valid configuration: AttributeError: module 'torch' has no attribute 'foo'"),
        ({"transformers_weights": "adapter_model.bin"}, "names its weights"),
    ],
    ids=str,
)
def test_configurations_that_cannot_be(checkpoint: Path, changes: dict[str, Any], reason: str) -> None:
    edit(checkpoint / "config.json", **changes)
    with pytest.raises(ExportError, match=rf"config\.json:? .*{reason}"):
        Checkpoint.open(checkpoint)
    with pytest.raises(ExportError, match=reason):  # a shape to train is no other
        find_config(checkpoint, 8)


@pytest.mark.parametrize(
    "change", [{"num_hidden_layers": 10**6}, {"vocab_size": 2**31 - 1}, {"intermediate_size": 10**9}]
)
def test_a_model_far_larger_than_its_weights_is_not_made(checkpoint: Path, change: dict[str, int]) -> None:
    edit(checkpoint / "config.json", **change)
    with pytest.raises(
        ExportError, match=r"config\.json describes a model of [\d,]+ weights, but its files hold 1\d,\d+"
    ):
        Checkpoint.open(checkpoint).load("fp32", [])
    with pytest.raises(EngineError, match="describes a model of"):  # the torch engine's way
        load_model(checkpoint, torch.float32)


def test_an_unknown_activation_is_told_of(checkpoint: Path) -> None:
    edit(checkpoint / "config.json", hidden_act="nope")
    with pytest.raises(ExportError, match=r"as its config\.json describes it: KeyError: 'nope'"):
        Checkpoint.open(checkpoint).load("fp32", [])


def test_no_configuration_names_code_to_run(checkpoint: Path) -> None:
    edit(
        checkpoint / "config.json", attn_implementation="somebody/attention", _attn_implementation="somebody/attention"
    )
    assert Checkpoint.open(checkpoint).load("fp32", []).config._attn_implementation == "sdpa"


def test_shards_lie_beside_their_index(checkpoint: Path) -> None:
    index = checkpoint / "model.safetensors.index.json"
    (checkpoint / "model.safetensors").rename(checkpoint.parent / "weights.safetensors")
    for name in ("../weights.safetensors", "pytorch_model.bin", "weights.safetensors", "x" * 4000):
        index.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
        with pytest.raises(ExportError, match=r"index\.json names '.*'; expected a \.safetensors file beside it"):
            Checkpoint.open(checkpoint)
    for content in ("[]", "{", '{"weight_map": {}}', '{"weight_map": []}', "{}"):
        index.write_text(content)
        with pytest.raises(EngineError, match=r"index\.json"):
            check_checkpoint(checkpoint)


@pytest.mark.parametrize("content", ["[]", "{", "3", '{"version": "1.0"}', "\udcff", "[" * 3000])
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
)
def test_the_damaged_file_of_a_tokenizer_is_named(checkpoint: Path, name: str, content: str) -> None:
    (checkpoint / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    if content == '{"version": "1.0"}' and name != "tokenizer.json":
        content = "null"
        (checkpoint / name).write_text(content)
    with pytest.raises(ExportError) as caught:
        load_tokenizer(checkpoint)
    assert str(checkpoint / name) in str(caught.value)
    assert "ave " in str(caught.value)  # how to mend it


def test_a_panic_in_rust_is_a_fault() -> None:
    panic = type("PanicException", (BaseException,), {})
    assert is_fault(panic("index out of range"))
    assert not is_fault(KeyboardInterrupt())
    assert said(panic("index\nout of range")) == "PanicException: index out of range"
    assert said(KeyError("x")) == "KeyError: 'x'"
    assert said(ValueError("too\n much")) == "too much"
    assert said(ValueError()) == "ValueError"
    assert len(said(ValueError("x" * 9999))) < 400


@pytest.fixture
def pieces(tmp_path: Path) -> Path:
    return pieces_checkpoint(tmp_path / "target")


def test_a_sentencepiece_tokenizer_is_exported(pieces: Path, tmp_path: Path) -> None:
    index = tiny_catalog(tmp_path / "index.json", items=2, levels=1, codes=2)
    good("export", "--target", pieces, "--catalog", index, "-o", tmp_path / "bundle")
    tokenizer = load_tokenizer(pieces)
    assert tokenizer("user likes<a_1>")["input_ids"][-1] == 61
    (pieces / "tokenizer.model").write_bytes(b"\x00nothing")
    assert "tokenizer.model is no model of sentencepiece" in bad(
        "export", "--target", pieces, "--catalog", index, "-o", tmp_path / "b"
    )


def test_without_sentencepiece_the_message_names_it(pieces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sentencepiece"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ExportError) as caught:
        load_tokenizer(pieces)
    assert f"tokenizer.model needs sentencepiece, which is not installed. Run: {install('export')}" in str(caught.value)
    assert "tiktoken" not in str(caught.value)


HOSTILE = {
    "repetition_penalty": 2.0, "no_repeat_ngram_size": 2, "suppress_tokens": [11], "begin_suppress_tokens": [12],
    "forced_eos_token_id": 3, "forced_bos_token_id": 5, "bad_words_ids": [[13]], "sequence_bias": [[[14], 9.0]],
    "top_k": 1, "temperature": 0.3, "num_beams": 4, "num_return_sequences": 8, "length_penalty": 3.0,
    "early_stopping": True, "renormalize_logits": True, "min_length": 40, "max_length": 2, "max_new_tokens": 1,
    "exponential_decay_length_penalty": [1, 9.0], "guidance_scale": 4.0, "eos_token_id": [3, 2],
}  # fmt: skip


@pytest.mark.parametrize(
    "content", [json.dumps(HOSTILE), '{"num_beams": 4, "num_return_sequences": 8}', "[]", "{", "2"]
)
def test_no_model_depends_on_how_it_would_generate(checkpoint: Path, content: str, tmp_path: Path) -> None:
    plain = Checkpoint.open(checkpoint).load("fp32", [])
    (checkpoint / "generation_config.json").write_text(content)
    model = Checkpoint.open(checkpoint).load("fp32", [])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    kept = {key: value for key, value in model.generation_config.to_diff_dict().items() if key.endswith("token_id")}
    assert kept == ({"eos_token_id": [3, 2]} if content.startswith('{"rep') else {})
    model.save_pretrained(tmp_path / "copy")  # transformers refuses to write settings that contradict themselves


def test_old_configurations_hold_settings_of_generate(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "generation_config.json").unlink()
    edit(checkpoint / "config.json", repetition_penalty=1.5, num_beams=3)
    opened = Checkpoint.open(checkpoint)
    assert opened.notes == [f"not applied of {checkpoint}'s settings of generation: repetition_penalty=1.5"]
    opened.load("fp32", []).save_pretrained(tmp_path / "copy")


@pytest.mark.usefixtures("quick_exports")
def test_what_search_does_not_apply_is_said_at_export(checkpoint: Path, tmp_path: Path) -> None:
    file, index = checkpoint / "generation_config.json", tiny_catalog(tmp_path / "index.json")
    command = ("export", "--target", checkpoint, "--catalog", index, "-o", tmp_path / "bundle", "--overwrite")
    file.write_text(json.dumps({"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.0, "eos_token_id": 3}))
    assert "not applied" not in good(*command).stderr
    file.write_text(json.dumps({"do_sample": True, "temperature": 0.6, "repetition_penalty": 1.1, "top_p": 1.0}))
    assert "repetition_penalty=1.1, do_sample=True, temperature=0.6\n" in good(*command).stderr


def test_token_ids_are_taken_where_they_are_some(tmp_path: Path) -> None:
    file = tmp_path / "generation_config.json"
    for content, expected in (
        ({"eos_token_id": [3, 2], "bos_token_id": 1, "pad_token_id": -1}, {"eos_token_id": [3, 2], "bos_token_id": 1}),
        ({"eos_token_id": [], "bos_token_id": [1], "pad_token_id": True}, {}),
        ({"eos_token_id": "3"}, {}),
    ):
        file.write_text(json.dumps(content))
        assert token_settings(tmp_path) == expected
    assert not_applied(tmp_path / "nothing") == {}


def test_an_adapter_that_says_what_cannot_be(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    adapter, base = tmp_path / "adapter", tiny_checkpoint(tmp_path / "base")
    adapter.mkdir()
    save_file(
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 32)},
        adapter / "adapter_model.safetensors",
    )
    good_config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2}
    for change, reason in (
        ({"r": 0}, r"Expected `int` >= 1 - at `\$\.r`"),
        ({"r": 5000}, "says rank 5000, more than any tensor"),
        ({"rank_pattern": {"q": 4000}}, "says rank 4000"),
        ({"base_model_name_or_path": 5}, r"at `\$\.base_model_name_or_path`"),
        ({"base_model_name_or_path": "x" * 5000}, "not a local directory"),
        ({"trainable_token_indices": [-1]}, r"at `\$\.trainable_token_indices"),
        ({"peft_type": None}, r"at `\$\.peft_type`"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps(good_config | change))
        with pytest.raises(ExportError, match=rf"adapter_config\.json.*{reason}"):
            Checkpoint.open(adapter)
    make_tokenizer(IDENTIFIERS).save_pretrained(adapter)
    for change, reason in (
        ({"trainable_token_indices": [2**30]}, r"trains row 1073741824 of trainable_token_indices.* have 31"),
        ({"target_modules": ["nothing"]}, r"could not be merged into .* as its adapter_config\.json describes it"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps(good_config | change))
        with pytest.raises(ExportError, match=reason):
            Checkpoint.open(adapter).load("fp32", [])


def test_a_damaged_chat_template_is_named(checkpoint: Path, tmp_path: Path) -> None:
    index = tiny_catalog(tmp_path / "index.json")
    (checkpoint / "chat_template.jinja").write_text("{% for m in messages %}")
    with pytest.raises(SpecBeamError, match="chat template cannot be applied"):
        export_bundle(checkpoint, None, index, None, tmp_path / "bundle", chat=True)


@pytest.mark.usefixtures("quick_exports")
def test_a_text_bundle_ends_texts_as_the_checkpoint_says(tmp_path: Path) -> None:
    target = tiny_checkpoint(tmp_path / "target", tokenizer=make_text_tokenizer())
    for content, ends in (
        ('{"eos_token_id": [3, 7], "num_beams": 1, "num_return_sequences": 2}', (3, 7)),
        ("[]", (3,)),
    ):
        (target / "generation_config.json").write_text(content)
        assert export_text(target, tmp_path / "bundle", checkpoints=False, overwrite=True).end_tokens == ends


def test_fresh_weights_have_no_chat_template(tmp_path: Path) -> None:
    from datasets_made import write_dataset

    data = write_dataset(tmp_path / "data")
    message = bad("train", "--data", data, "--config", "1x32", "--chat", "-o", tmp_path / "model")
    assert "--chat needs a tokenizer with a chat template" in message
    assert "Give --tokenizer CHECKPOINT" in message
