"""A checkpoint directory: what it is, whether it can be exported faithfully, and its weights."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..catalog.errors import EngineError, ExportError
from ..engines.facts import ModelFacts
from ..engines.torch import DTYPES, head_dim, load_model, matrix
from .adapter import Adapter
from .quiet import quiet

ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM")
STATIC_ROPE = ("default", "linear", "llama3", "yarn")
SHOWN = 5  # how many tokens a message names


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that passed every check that needs no weights."""

    directory: Path
    config: PretrainedConfig  # of the model itself; an adapter's is its base model's
    tokenizer: PreTrainedTokenizerBase
    adapter: Adapter | None

    @classmethod
    def open(cls, directory: Path) -> "Checkpoint":
        """Read the configuration and the tokenizer of a model or of a LoRA adapter.

        Raises `ExportError` with the reason and the remedy for whatever cannot be exported faithfully.
        """
        adapter = Adapter.open(directory) if (directory / "adapter_config.json").is_file() else None
        base = adapter.base if adapter else directory
        raw = read_json(base / "config.json", "a checkpoint directory as save_pretrained writes it")
        check_architecture(base, raw)
        check_weight_files(base)
        with quiet():
            config = _config(base)
            check_positions(base, config)
            tokenizer = load_tokenizer(directory)
        if adapter is None:
            check_rows(directory, tokenizer, int(config.vocab_size))
        return cls(directory, config, tokenizer, adapter)

    @property
    def context(self) -> int:
        """Positions the model was made for."""
        return int(self.config.max_position_embeddings)

    def load(self, precision: str, identifiers: Sequence[str]) -> PreTrainedModel:
        """The model with its weights in `precision`, adapters merged.

        `identifiers`: the catalog's tokens. Raises `ExportError` when weights are missing or left
        over, when identifiers have no trained rows, or when weights overflow in `precision`.
        """
        dtype = DTYPES[precision]
        with quiet():
            try:
                if self.adapter is None:
                    model = load_model(self.directory, dtype, self.config)
                else:
                    base = load_model(self.adapter.base, torch.float32, self.config)
                    base_tokens = self._base_tokens(self.adapter)
                    model = self.adapter.merge(base, self.tokenizer.get_vocab(), base_tokens, identifiers)
            except EngineError as error:
                raise ExportError(str(error)) from error
        check_rows(self.directory, self.tokenizer, len(matrix(model.get_input_embeddings())))
        cast_parameters(model, dtype)
        unfit = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
        if unfit:
            raise ExportError(
                f"{self.directory}: {len(unfit)} weights are not finite in {precision} (first: {unfit[0]}). "
                "Export with --precision fp32 or bf16, or mend the checkpoint."
            )
        return model

    def _base_tokens(self, adapter: Adapter) -> dict[str, int] | None:
        """The base model's vocabulary; None where it has no tokenizer."""
        try:
            return dict(load_tokenizer(adapter.base).get_vocab())
        except ExportError:
            return None


def model_facts(model: PreTrainedModel) -> ModelFacts:
    """What the manifest says of a model."""
    config = model.config
    return ModelFacts(
        architecture=type(model).__name__,
        parameters=sum(weight.numel() for weight in model.parameters()),
        layers=int(config.num_hidden_layers),
        kv_heads=int(config.num_key_value_heads),
        head_dim=head_dim(config),
        vocabulary=len(matrix(model.lm_head)),
        context=int(config.max_position_embeddings),
    )


def cast_parameters(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast the weights in place, but not the buffers: `model.to(dtype)` would round the rotary frequencies."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    model.config.dtype = dtype


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """A JSON object from a file. Raises `ExportError` saying what was `expected` there."""
    if not path.is_file():
        raise ExportError(f"{path.parent} has no {path.name}; expected {expected}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ExportError(f"{path} is not JSON ({error}); expected {expected}.") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path} holds a JSON {type(content).__name__} and not an object; expected {expected}.")
    return content


def check_architecture(directory: Path, raw: dict[str, Any]) -> None:
    """Refuse models whose graph is not known to fulfil the contract, and code that comes with a checkpoint."""
    supported = f"Supported are {', '.join(ARCHITECTURES)}."
    names = raw.get("architectures") or []
    if "auto_map" in raw:
        raise ExportError(f"{directory} brings its own code (auto_map in config.json), which is never run. {supported}")
    if raw.get("is_encoder_decoder"):
        raise ExportError(f"{directory} is an encoder-decoder ({', '.join(names)}); only decoders work. {supported}")
    if len(names) != 1 or names[0] not in ARCHITECTURES:
        got = ", ".join(map(str, names)) or "no architecture in its config.json"
        raise ExportError(f"{directory} is {got}, which cannot be exported. {supported}")
    if "quantization_config" in raw:
        method = raw["quantization_config"].get("quant_method", "unknown method")
        raise ExportError(
            f"{directory} is quantised ({method}). Export the unquantised checkpoint; quantisation is a later step."
        )


def check_weight_files(directory: Path) -> None:
    """Refuse pickled weights, which execute code when loaded."""
    if (directory / "model.safetensors").is_file() or (directory / "model.safetensors.index.json").is_file():
        return
    pickles = sorted(path.name for path in directory.glob("*.bin"))
    found = f"only pickled weights ({', '.join(pickles[:SHOWN])})" if pickles else "no weights"
    raise ExportError(
        f"{directory} holds {found}; expected model.safetensors. Load it where you trust it and save it again with "
        "model.save_pretrained(...)."
    )


def check_positions(directory: Path, config: PretrainedConfig) -> None:
    """Refuse what a mask cannot express: windows that slide within the context, RoPE that depends on the length.

    A window as long as the context never slides: it is removed from `config`.
    """
    context = config.max_position_embeddings
    window = getattr(config, "sliding_window", None)
    layer_types = getattr(config, "layer_types", None) or []
    odd = sorted(set(layer_types) - {"full_attention", "sliding_attention"})
    if odd:
        raise ExportError(f"{directory} has attention layers of type {', '.join(odd)}; only full attention works.")
    slides = window is not None and (not layer_types or "sliding_attention" in layer_types)
    if slides and window < context:
        raise ExportError(
            f"{directory} attends through a sliding window of {window} positions, shorter than its context of "
            f"{context}; a tree mask would silently switch the window off. If your prompts fit into the window, set "
            f'"max_position_embeddings": {window} in config.json.'
        )
    if window is not None:
        config.sliding_window = None
    if layer_types:
        config.layer_types = ["full_attention"] * len(layer_types)
    rope = config.rope_parameters or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    changing = sorted({part.get("rope_type", "default") for part in nested or [rope]} - set(STATIC_ROPE))
    if changing:
        raise ExportError(
            f"{directory} uses RoPE scaling {', '.join(changing)}, which changes with the sequence's length, so that "
            f"cached keys would be wrong. Supported are {', '.join(STATIC_ROPE)}."
        )


def check_rows(directory: Path, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Every token of the tokenizer needs an embedding row."""
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if beyond:
        raise ExportError(
            f"{directory}: the tokenizer has {len(beyond)} tokens without embedding rows (the matrix has {rows}): "
            f"{', '.join(f'{token} ({number})' for number, token in beyond[:SHOWN])}"
            f"{', ...' if len(beyond) > SHOWN else ''}. The checkpoint was saved without them: call "
            "model.resize_token_embeddings(len(tokenizer)), train, and save the whole model; with LoRA, train with "
            'modules_to_save=["embed_tokens", "lm_head"].'
        )


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a local directory. Raises `ExportError` when there is none or it brings code."""
    settings = directory / "tokenizer_config.json"
    if settings.is_file() and "auto_map" in read_json(settings, "a tokenizer's settings"):
        raise ExportError(f"{directory}'s tokenizer brings its own code (auto_map), which is never run. Convert it.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ExportError(
            f"{directory} has no tokenizer that transformers can load ({error}); save it there with "
            "tokenizer.save_pretrained(...)."
        ) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _config(directory: Path) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{directory / 'config.json'} is not a valid configuration: {error}") from error
    assert isinstance(config, PretrainedConfig)
    return config
