"""A checkpoint directory: what it is, whether it can be exported faithfully, and its weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..catalog.errors import EngineError, ExportError, is_fault, said
from ..catalog.records import read_json
from ..engines.checkpoint_guard import CONFIG, SAVE_AGAIN, read_shape, weight_files
from ..engines.decoder_facts import BOUNDED_ROPE, context_of, matrix, ropes, windows
from ..engines.generation import generation_settings, not_applied
from ..engines.torch import DTYPES, load_model
from .adapter import Adapter
from .hub import ADAPTER, origin
from .quiet import quiet
from .tokenizer import load_tokenizer

# Which architectures work is found by trying (`parity`). These could pass it by chance, and be wrong later.
REFUSED = {
    "DogeForCausalLM": "its attention chooses for itself which tokens a token sees, whatever the mask says",
    "GPTNeoForCausalLM": "its local attention counts slots of the cache, not positions, behind the mask's back",
}
READING = {"t5": "T5ForConditionalGeneration", "mt5": "MT5ForConditionalGeneration"}  # encoder-decoders, by model_type
SUPPORTED = (
    "Supported is any decoder-only architecture of transformers that passes the check of its exported graph, and of "
    f"encoder-decoders {' and '.join(READING.values())}."
)
LAYER_TYPES = ("full_attention", "sliding_attention")
STATIC_ROPE = ("default", "linear", "proportional", "llama3", "yarn")
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
        adapter = Adapter.open(directory) if (directory / ADAPTER).is_file() else None
        base = adapter.base if adapter else directory
        with quiet(), as_export_error():
            config = load_config(base / CONFIG)
            weight_files(base)
            tokenizer = load_tokenizer(directory)
        if adapter is not None and config.is_encoder_decoder:
            raise ExportError(
                f"{directory} is an adapter of an encoder-decoder ({base}); only those of decoders are merged here. "
                "Merge it where it was trained (merge_and_unload), and save the whole model."
            )
        if adapter is None:
            check_rows(directory, tokenizer, int(config.vocab_size))
        return cls(directory, config, tokenizer, adapter)

    @property
    def base(self) -> Path:
        """Where the weights lie: an adapter's are its base model's."""
        return self.adapter.base if self.adapter else self.directory

    @property
    def origins(self) -> dict[str, str]:
        """Where it is from, and an adapter's base model, as manifests say: what is of a hub, and folders not."""
        places = {"checkpoint": self.directory} | ({"base": self.base} if self.adapter else {})
        return {name: found for name, place in places.items() if (found := origin(place)) is not None}

    @property
    def context(self) -> int:
        """Positions the model was made for; of an encoder-decoder, as many for a prompt as for what is decoded."""
        return context_of(self.config)

    @property
    def notes(self) -> list[str]:
        """What to tell whoever exports it: settings of the checkpoint's that search does not apply."""
        settings = [f"{name}={value!r}" for name, value in not_applied(self.base).items()]
        notes = [f"not applied of {self.base}'s settings of generation: {', '.join(settings)}"] if settings else []
        if not self.config.is_encoder_decoder and self.context < self.config.max_position_embeddings:
            notes.append(
                f"the context is {self.context} of {self.config.max_position_embeddings} positions: beyond it the "
                "model's RoPE changes with the sequence's length, and cached keys would be wrong"
            )
        return notes

    def load(self, precision: str, identifiers: Sequence[str]) -> PreTrainedModel:
        """The model with its weights in `precision`, adapters merged.

        `identifiers`: the catalog's tokens. Raises `ExportError` when weights are missing or left
        over, when identifiers have no trained rows, or when weights overflow in `precision`.
        """
        dtype = DTYPES[precision]
        with quiet(), as_export_error():
            if self.adapter is None:
                model = load_model(self.directory, dtype, self.config)
            else:
                base = load_model(self.adapter.base, torch.float32, self.config)
                base_tokens = self._base_tokens(self.adapter)
                model = self.adapter.merge(base, self.tokenizer.get_vocab(), base_tokens, identifiers)
        check_rows(self.directory, self.tokenizer, len(matrix(model.get_input_embeddings())))
        cast_parameters(model, dtype)
        unfit = [name for name, weight in model.named_parameters() if not _finite(weight)]
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


def _finite(weight: torch.Tensor) -> bool:
    """Whether all numbers are some; without a copy of the weight. A NaN among them is the least and the largest."""
    return bool(torch.isfinite(torch.stack(torch.aminmax(weight))).all())


def cast_parameters(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast the weights in place, but not the buffers: `model.to(dtype)` would round the rotary frequencies."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    model.config.dtype = dtype


@contextmanager
def as_export_error() -> Iterator[None]:
    """An engine's complaint about a checkpoint as an exporter's."""
    try:
        yield
    except EngineError as error:
        raise ExportError(str(error)) from error


class Declared(msgspec.Struct):
    """What config.json says of a model before its numbers."""

    model_type: str | None = None
    architectures: list[str] | None = None
    is_encoder_decoder: bool | None = None
    auto_map: Any = None
    transformers_weights: Any = None
    quantization_config: dict[str, Any] | None = None


def load_config(file: Path) -> PretrainedConfig:
    """A config.json whose model can be exported. Raises `ExportError` with the reason for any other."""
    if not file.is_file():
        got = f"{file.parent} is a file" if file.parent.is_file() else f"{file.parent} has no {file.name}"
        raise ExportError(f"{got}; expected a checkpoint directory as save_pretrained writes it.")
    declared, _ = read_json(
        file, Declared, "expected a model's configuration as save_pretrained writes it", ExportError
    )
    check_architecture(file.parent, declared)
    with quiet(), as_export_error():
        read_shape(file)
        try:
            config = AutoConfig.from_pretrained(file, local_files_only=True, trust_remote_code=False)
            for name in config._get_generation_parameters():  # older files hold some, and could not be saved again
                delattr(config, name)
        except BaseException as error:
            if not is_fault(error):
                raise
            raise ExportError(f"{file} is no valid configuration: {said(error)}. {SAVE_AGAIN}") from error
        assert isinstance(config, PretrainedConfig)
    if config.is_encoder_decoder:
        check_start(file.parent, config)
        return config
    with as_export_error():
        check_positions(file.parent, config)
    return config


def check_architecture(directory: Path, declared: Declared) -> None:
    """Refuse what is no model of transformers' own, and those that are known to go wrong without a sign of it."""
    names = declared.architectures or []
    if declared.auto_map is not None:
        raise ExportError(f"{directory} brings its own code (auto_map in config.json), which is never run. {SUPPORTED}")
    if declared.is_encoder_decoder and not set(names) & set(READING.values()):
        raise ExportError(
            f"{directory} is an encoder-decoder ({', '.join(names)}) of which it is not known how its graphs must be "
            f"fed. {SUPPORTED}"
        )
    expected = {**MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, **READING}.get(declared.model_type or "")
    if expected is None or len(names) != 1:
        got = ", ".join(names) or "no architecture in its config.json"
        raise ExportError(f"{directory} is {got}, which cannot be exported. {SUPPORTED}")
    if names[0] != expected:
        raise ExportError(
            f"{directory / CONFIG} says model_type {declared.model_type!r} of a {names[0]}; expected a {expected}. "
            f"{SUPPORTED}"
        )
    if names[0] in READING.values() and declared.is_encoder_decoder is False:
        raise ExportError(f"{directory / CONFIG} says is_encoder_decoder false of a {names[0]}. Set it to true there.")
    if names[0] in REFUSED:
        raise ExportError(f"{directory} is a {names[0]}, which cannot be exported: {REFUSED[names[0]]}. {SUPPORTED}")
    if declared.transformers_weights is not None:
        raise ExportError(f"{directory / CONFIG} names its weights (transformers_weights). Save the model again.")
    if declared.quantization_config is not None:
        method = declared.quantization_config.get("quant_method", "unknown method")
        raise ExportError(
            f"{directory} is quantised ({method}). Export the unquantised checkpoint; quantisation is a later step."
        )


def check_start(directory: Path, config: PretrainedConfig) -> None:
    """Refuse an encoder-decoder of which it is not known which token its decoder begins with.

    `generate` takes generation_config.json's; where config.json says none, that one is put into `config`.
    """
    told = generation_settings(directory).get("decoder_start_token_id")
    start, rows = getattr(config, "decoder_start_token_id", None), int(config.vocab_size)
    if start is None and isinstance(told, int):
        config.decoder_start_token_id = start = told
    if told not in (None, start):
        raise ExportError(
            f"{directory / CONFIG} says decoder_start_token_id {start}, and its generation_config.json {told!r}; "
            "expected the token that the decoder was trained to begin with in both."
        )
    if start is None or not 0 <= start < rows:
        raise ExportError(
            f"{directory / CONFIG} says decoder_start_token_id {start}; expected the token that the decoder was "
            f"trained to begin with, one of {rows}. Set it there: of T5 and mT5 it is the pad token's "
            f"({config.pad_token_id})."
        )
    if config.pad_token_id is None:
        raise ExportError(
            f"{directory / CONFIG} says pad_token_id null; expected the token that fills prompts up where the model is "
            f"trained and compared. Set it there: of T5 and mT5 it is what the decoder begins with ({start})."
        )


def check_positions(directory: Path, config: PretrainedConfig) -> None:
    """Refuse what masks and positions cannot express: attention of other kinds, biases by slot, unknown RoPE."""
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]
    if (
        getattr(config, "alibi", False)
        or "position_ids" not in signature(getattr(transformers, name).forward).parameters
    ):
        raise ExportError(
            f"{directory} is a {name} that takes no positions: it counts the slots of its cache (ALiBi, or positions "
            "that it learnt and counts for itself), in which the tokens of a tree do not lie in order, or keeps a "
            f"state instead of one. {SUPPORTED}"
        )
    try:
        context_of(config)
    except EngineError as error:
        raise ExportError(f"{directory / CONFIG}: {error}") from None
    odd = sorted(set(getattr(config, "layer_types", None) or []) - set(LAYER_TYPES))
    if odd:
        raise ExportError(
            f"{directory} has layers of type {', '.join(odd)}; only attention to the whole context or through a "
            "sliding window works."
        )
    if len(spans := set(windows(config)) - {None}) > 1:
        raise ExportError(f"{directory} has windows of {', '.join(map(str, sorted(spans, key=str)))}; only one works.")
    known = (*STATIC_ROPE, *BOUNDED_ROPE)
    unknown = sorted({rope.get("rope_type", "default") for rope in ropes(config)} - set(known))
    if unknown:
        raise ExportError(
            f"{directory} uses RoPE scaling {', '.join(unknown)}, which may change with the sequence's length, so that "
            f"cached keys would be wrong. Supported are {', '.join(known)}."
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
