"""Encoder-decoders that export refuses, with the reason; and bundles of those that it takes."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from quick_builds import few_timings
from specbeam.catalog.errors import ExportError
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.bundle.model import ModelBundle
from specbeam.export import export_bundle
from specbeam.export.checkpoint import Checkpoint
from specbeam.export.text import export_text
from tiny_models import END, identifier_tokens, make_tokenizer, tiny_catalog, tiny_checkpoint

pytestmark = pytest.mark.usefixtures("quick_exports")


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"architectures": ["BartForConditionalGeneration"], "model_type": "bart"},
            r"encoder-decoder \(BartForConditionalGeneration\).* T5ForConditionalGeneration and MT5",
        ),
        ({"architectures": ["UMT5ForConditionalGeneration"], "model_type": "umt5"}, r"\(UMT5ForCondit"),
        ({"model_type": "llama"}, "says model_type 'llama' of a T5ForConditionalGeneration; expected a Llama"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder false of a T5ForConditionalGeneration. Set it to true"),
        ({"pad_token_id": None}, r"pad_token_id null; expected .* what the decoder begins with \(1\)"),
        ({"decoder_start_token_id": "absent"}, r"decoder_start_token_id None; expected .* the pad token's \(1\)"),
        ({"decoder_start_token_id": 99}, "decoder_start_token_id 99; expected .* one of 31"),
        ({"num_heads": 0}, "num_heads"),
        ({"relative_attention_max_distance": 3}, "max_distance 3 is within the half of 8 buckets"),
        ({"feed_forward_proj": "gated-gelu-new"}, "no valid configuration"),
        ({"d_ff": 2**20}, r"describes a model of [\d,]+ weights"),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target", "t5")
    edit_config(checkpoint, **changes)
    (checkpoint / "generation_config.json").unlink()
    with pytest.raises(ExportError, match=reason):
        Checkpoint.open(checkpoint).load("fp32", [])


def test_the_context_is_what_the_checkpoint_says(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target", "t5")
    assert Checkpoint.open(checkpoint).context == 128
    edit_config(checkpoint, n_positions="absent")
    assert Checkpoint.open(checkpoint).context == 512


def test_text_and_adapters_are_for_decoders(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target", "t5")
    with pytest.raises(ExportError, match="is an encoder-decoder; text is generated with decoders alone"):
        export_text(checkpoint, tmp_path / "text")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 1, "base_model_name_or_path": str(checkpoint)}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (adapter / "adapter_model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    make_tokenizer([]).save_pretrained(adapter)
    with pytest.raises(ExportError, match=r"adapter of an encoder-decoder .*\n?.*merge_and_unload"):
        Checkpoint.open(adapter)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    folder = tmp_path_factory.mktemp("encoder")
    target, draft = tiny_checkpoint(folder / "target", "t5"), tiny_checkpoint(folder / "draft", seed=1)
    export_bundle(target, draft, tiny_catalog(folder / "index.json"), None, folder / "bundle", history_length=4)
    return Bundle.open(folder / "bundle")


def test_a_bundle_holds_what_reads(bundle: ModelBundle) -> None:
    assert bundle.encoder("target").is_file()
    assert bundle.facts("target").encoder is not None
    assert bundle.facts("draft").encoder is None
    assert {"target/encoder.onnx", "target/model.onnx", "draft/model.onnx"} <= bundle.manifest.files.keys()


@pytest.mark.parametrize("prompt", [None, "{history}"])
def test_prompts_that_are_no_texts_of_the_tokenizer_are_told_of(
    bundle: ModelBundle, prompt: str | None, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(identifier_tokens())
    ended = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    tokenizer.backend_tokenizer.post_processor = ended
    target = tiny_checkpoint(tmp_path / "target", "t5", tokenizer=tokenizer)
    told = list[str]()
    options = {"history_length": 4, "progress": told.append, "checkpoints": False}
    index = tiny_catalog(tmp_path / "index.json")
    manifest = export_bundle(target, None, index, None, tmp_path / "out", prompt=prompt, **options)  # type: ignore[arg-type]
    warned = any("the tokenizer ends texts with </s>" in stage for stage in told)
    assert (warned, manifest.prompt.suffix_ids) == ((True, ()) if prompt is None else (False, (END,)))


def test_engines_are_built_of_both_graphs(bundle: ModelBundle) -> None:
    for precision in ("fp32", "fp16"):
        with few_timings():
            folder = build_engine(bundle, precision=precision, threads=1)  # type: ignore[arg-type]
        facts = bundle.engine_facts(folder.name).roles["target"]
        assert {file.name for file in (folder / "target").glob("*.onnx")} == {
            "model.onnx", "encoder.onnx", "constrained.onnx"
        }  # fmt: skip
        assert facts.max_difference is not None
        assert facts.max_difference < {"fp32": 1e-3, "fp16": 0.1}[precision]
        assert {point.past for point in facts.latency} == {0, 80}


@pytest.mark.parametrize(("own", "told"), [(None, 7), (7, 7), (1, 7)])
def test_the_start_is_what_generate_begins_with(tmp_path: Path, own: int | None, told: int) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "target", "t5")
    edit_config(checkpoint, decoder_start_token_id=own)
    (checkpoint / "generation_config.json").write_text(json.dumps({"decoder_start_token_id": told}))
    if own in (None, told):
        assert Checkpoint.open(checkpoint).config.decoder_start_token_id == told
    else:
        with pytest.raises(ExportError, match=r"decoder_start_token_id 1, and its generation_config.json 7; expected"):
            Checkpoint.open(checkpoint)
