"""Damaged checkpoints as targets of `fuzz.py`: every file mutated, read by the exporter's loaders or loaded whole."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.reliability.fuzz_mutations import Target as FuzzTarget
from fuzzing import alternating, mutated, mutated_json
from specbeam.catalog.identifiers import compile_identifiers
from specbeam.catalog.items import Catalog
from specbeam.catalog.prompts.chat import Chat
from specbeam.catalog.prompts.compile import compile_prompt
from specbeam.catalog.prompts.options import PromptOptions
from specbeam.engines.checkpoint_guard import check_checkpoint
from specbeam.engines.decoder_facts import model_facts
from specbeam.engines.generation import not_applied, token_settings
from specbeam.export.adapter import Adapter
from specbeam.export.checkpoint import Checkpoint, load_config
from specbeam.export.quiet import quiet
from specbeam.export.tokenizer import load_tokenizer
from tiny_models import (
    make_model,
    make_text_tokenizer,
    make_tokenizer,
    tiny_catalog,
    tiny_checkpoint,
)

TEMPLATE = "<s>{% for m in messages %}[{{ m.content | trim }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
SPECIAL = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "unk_token": "<unk>"}
GENERATION = {
    "eos_token_id": [3, 2], "do_sample": True, "temperature": 0.6, "repetition_penalty": 1.1, "num_beams": 4,
    "suppress_tokens": [5], "sequence_bias": [[[4], 1.0]], "forced_eos_token_id": 3,
}  # fmt: skip
SHAPE = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}


@dataclass(frozen=True)
class Target:
    """A file of a checkpoint, and what reads it first."""

    file: str
    folder: str  # the checkpoint in which it is mutated
    read: Callable[[Path], object]
    seeds: tuple[bytes, ...]


class Checkpoints:
    """Whole checkpoints in a folder: a model in one file, one in shards, and an adapter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, kind, settings in (("model", "llama", {}), ("other", "qwen3", {"rope_parameters": YARN})):
            tiny_checkpoint(folder / name, kind, codes=3, tokenizer=None, **SHAPE, **settings)
        model, tokenizer = folder / "model", make_tokenizer(["<a_0>", "<a_1>"])
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(model)
        shutil.copytree(model, folder / "sharded")
        (folder / "sharded" / "model.safetensors").unlink()
        make_model(rows=len(tokenizer) + 3, **SHAPE).save_pretrained(folder / "sharded", max_shard_size="2KB")
        for name, content in (
            ("special_tokens_map.json", SPECIAL),
            ("added_tokens.json", {"<a_0>": 10, "<a_1>": 11}),
            ("generation_config.json", GENERATION),
        ):
            (model / name).write_text(json.dumps(content))
        make_text_tokenizer().save_pretrained(folder / "text")
        self._adapter(tokenizer)
        self.catalog = Catalog.load(tiny_catalog(folder / "index.json", items=2, levels=1, codes=2), None)

    def _adapter(self, tokenizer: Tokenizer) -> None:
        from peft import LoraConfig, get_peft_model

        model = make_model(rows=len(tokenizer) + 3, **SHAPE)
        lora = LoraConfig(
            r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM",
            trainable_token_indices={"embed_tokens": [10, 11], "lm_head": [10, 11]},
        )  # fmt: skip
        with quiet():
            wrapped = get_peft_model(model, lora)
            wrapped.peft_config["default"].base_model_name_or_path = str(self.folder / "model")
            wrapped.save_pretrained(self.folder / "adapter", save_embedding_layers=False)
        tokenizer.save_pretrained(self.folder / "adapter")  # type: ignore[attr-defined]

    def seeds(self, file: str, *folders: str) -> tuple[bytes, ...]:
        return tuple((self.folder / folder / file).read_bytes() for folder in folders)

    def targets(self) -> list[Target]:
        """Every file, each read by what the exporter reads it with."""
        tokenizer_files = {
            "tokenizer.json": ("model", "text"), "tokenizer_config.json": ("model", "text"),
            "special_tokens_map.json": ("model",), "added_tokens.json": ("model",),
        }  # fmt: skip
        return [
            Target("config.json", "model", read_config, self.seeds("config.json", "model", "other")),
            *(Target(f, "model", load_tokenizer, self.seeds(f, *of)) for f, of in tokenizer_files.items()),
            Target("chat_template.jinja", "model", render, self.seeds("chat_template.jinja", "model")),
            Target("generation_config.json", "model", generation, self.seeds("generation_config.json", "model")),
            Target("model.safetensors", "model", check_checkpoint, self.seeds("model.safetensors", "model")),
            Target(
                "model.safetensors.index.json", "sharded", check_checkpoint,
                self.seeds("model.safetensors.index.json", "sharded"),
            ),
            Target("adapter_config.json", "adapter", Adapter.open, self.seeds("adapter_config.json", "adapter")),
            Target(
                "adapter_model.safetensors", "adapter", Adapter.open, self.seeds("adapter_model.safetensors", "adapter")
            ),
        ]  # fmt: skip

    def whole(self, directory: Path) -> None:
        """All that export does with a checkpoint before it traces the model."""
        source = Checkpoint.open(directory)
        with quiet():
            _ = source.notes
            compile_identifiers(source.tokenizer, self.catalog, "auto")
            options = PromptOptions(prompt="user {history} next:", separator=",", history_length=9)
            compile_prompt(source.tokenizer, self.catalog, options)
        model = source.load("fp32", self.catalog.tokens)
        model_facts(model)
        with tempfile.TemporaryDirectory() as copy, quiet():
            model.save_pretrained(copy)
            source.tokenizer.save_pretrained(copy)


def read_config(directory: Path) -> object:
    return load_config(directory / "config.json")


def render(directory: Path) -> str:
    with quiet():
        return Chat(load_tokenizer(directory)).render("hello")  # type: ignore[arg-type]


def generation(directory: Path) -> object:
    return not_applied(directory), token_settings(directory)


def inputs(target: Target, number: int, seed: int) -> Iterator[bytes]:
    """Half of them changed in their structure where they have one, the others blindly."""
    half = number // 2
    blind = mutated(target.seeds, number - half, seed=seed)
    if target.file.endswith(".json"):
        return alternating(mutated_json(target.seeds, half, seed=seed), blind)
    if target.file.endswith(".safetensors"):
        return alternating(headers(target.seeds[0], half, seed), blind)
    return alternating(mutated(target.seeds, half, seed=seed + 1), blind)


def headers(data: bytes, number: int, seed: int) -> Iterator[bytes]:
    """A safetensors file with another header (its length, JSON, then the tensors), the length being right."""
    length = int.from_bytes(data[:8], "little")
    for header in mutated_json([data[8 : 8 + length]], number, seed=seed):
        yield len(header).to_bytes(8, "little") + header + data[8 + length :]


def checkpoint_targets(checkpoints: Checkpoints, *, whole: bool) -> list[FuzzTarget]:
    """A file of a copy of its checkpoint each; `whole`: all of the checkpoint is loaded, not that file alone."""
    return [_target(checkpoints, target, whole) for target in checkpoints.targets()]


def _target(checkpoints: Checkpoints, target: Target, whole: bool) -> FuzzTarget:
    directory = checkpoints.folder / f"{'whole' if whole else 'mutated'}-{target.file}"
    shutil.copytree(checkpoints.folder / target.folder, directory)

    def use(data: bytes) -> None:
        (directory / target.file).write_bytes(data)
        if whole:
            checkpoints.whole(directory)
        else:
            with quiet():
                target.read(directory)

    return FuzzTarget(target.file, use, lambda number, seed: inputs(target, number, seed))
