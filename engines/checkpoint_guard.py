"""A checkpoint's configuration and weights, looked at before a library builds a model of them."""

from math import prod
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from safetensors import SafetensorError, safe_open

from ..catalog.errors import EngineError
from ..catalog.records import read_json

CONFIG, WEIGHTS, SHARDS = "config.json", "model.safetensors", "model.safetensors.index.json"
SAVE_AGAIN = "Copy the checkpoint again, or save it again with save_pretrained."
ENCODER_DECODERS = ("t5", "mt5")  # model_type of those that are known
SLACK = 2  # how many times as many weights as there are a configuration may describe: some may be missing, told later

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Positive = Annotated[float, Meta(gt=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]
TokenId = Annotated[int, Meta(ge=-1, le=2**31 - 1)]  # -1: none, in older files


class Rope(msgspec.Struct):
    """`rope_parameters` of config.json, of all layers or of one type of them; `rope_scaling` in older files."""

    rope_type: str = "default"
    type: str = "default"
    rope_theta: Positive | None = None
    factor: Positive | None = None
    low_freq_factor: Positive | None = None
    high_freq_factor: Positive | None = None
    original_max_position_embeddings: Positive | None = None
    attention_factor: Positive | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    mscale: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    mscale_all_dim: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    partial_rotary_factor: Annotated[float, Meta(gt=0, le=1)] | None = None
    truncate: bool | None = None
    short_factor: list[Positive] | None = None
    long_factor: list[Positive] | None = None


class Decoder(msgspec.Struct):
    """Numbers of config.json on which a decoder's shape and its positions depend; other keys are left to the model."""

    model_type: str
    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    max_position_embeddings: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    hidden_act: str = "silu"
    rms_norm_eps: Share = 1e-6
    initializer_range: Share = 0.02
    attention_dropout: Share | None = 0.0
    sliding_window: Count | None = None
    max_window_layers: Annotated[int, Meta(ge=0)] | None = None
    layer_types: list[str] | None = None
    rope_theta: Positive | None = None
    rope_parameters: dict[str, Any] | None = None
    rope_scaling: dict[str, Any] | None = None
    tie_word_embeddings: bool = False
    bos_token_id: TokenId | list[TokenId] | None = None
    eos_token_id: TokenId | list[TokenId] | None = None
    pad_token_id: TokenId | None = None

    @property
    def weights(self) -> int:
        """How many numbers its matrices hold, a head of its own and biases not counted."""
        width, heads = self.hidden_size, self.num_attention_heads
        size = self.head_dim or width // heads
        attention = 2 * heads + 2 * (self.num_key_value_heads or heads)
        layer = attention * size * width + 3 * width * self.intermediate_size
        return self.vocab_size * width + self.num_hidden_layers * layer


class EncoderDecoder(msgspec.Struct):
    """As `Decoder`, of encoder-decoders (T5 and mT5)."""

    model_type: str
    vocab_size: Count
    d_model: Count
    d_kv: Count
    d_ff: Count
    num_layers: Count
    num_heads: Count
    num_decoder_layers: Count | None = None
    n_positions: Count | None = None
    relative_attention_num_buckets: Annotated[int, Meta(ge=4, le=2**16)] = 32
    relative_attention_max_distance: Annotated[int, Meta(ge=1, le=2**20)] = 128
    feed_forward_proj: str = "relu"
    layer_norm_epsilon: Share = 1e-6
    initializer_factor: Positive = 1.0
    dropout_rate: Share = 0.1
    decoder_start_token_id: TokenId | None = None
    bos_token_id: TokenId | list[TokenId] | None = None
    eos_token_id: TokenId | list[TokenId] | None = None
    pad_token_id: TokenId | None = None

    @property
    def weights(self) -> int:
        """As of `Decoder`: every layer attends to itself, those of the decoder to the prompt as well."""
        attention = 4 * self.num_heads * self.d_kv
        dense = (3 if self.feed_forward_proj.startswith("gated-") else 2) * self.d_ff
        decoder = self.num_decoder_layers or self.num_layers
        layers = self.num_layers * (attention + dense) + decoder * (2 * attention + dense)
        return (self.vocab_size + layers) * self.d_model


class _Kind(msgspec.Struct):
    model_type: str = ""


def read_shape(file: Path) -> Decoder | EncoderDecoder:
    """A model's config.json. Raises `EngineError` where a number of it cannot be."""
    kind, _ = read_json(file, _Kind, f"expected a model's configuration. {SAVE_AGAIN[:-1]}", EngineError)
    if kind.model_type not in ENCODER_DECODERS:
        return read_decoder(file)
    expected = f"expected an encoder-decoder's configuration. {SAVE_AGAIN[:-1]}"
    shape, _ = read_json(file, EncoderDecoder, expected, EngineError)
    buckets, most = shape.relative_attention_num_buckets, shape.relative_attention_max_distance
    if most <= buckets // 2:
        raise EngineError(
            f"{file}: relative_attention_max_distance {most} is within the half of {buckets} buckets that are one "
            f"distance each, which cannot be. {SAVE_AGAIN}"
        )
    return shape


def read_decoder(file: Path) -> Decoder:
    """A decoder's config.json. Raises `EngineError` where a number of it cannot be."""
    decoder, _ = read_json(file, Decoder, f"expected a decoder's configuration. {SAVE_AGAIN[:-1]}", EngineError)
    for name in ("rope_parameters", "rope_scaling"):
        rope = getattr(decoder, name) or {}
        parts = {f".{key}": value for key, value in rope.items() if isinstance(value, dict)} or {"": rope}
        for key, part in parts.items():
            try:
                msgspec.convert(part, Rope)
            except msgspec.ValidationError as error:
                raise EngineError(f"{file}: {error} of `{name}{key}`. {SAVE_AGAIN}") from None
    heads, groups = decoder.num_attention_heads, decoder.num_key_value_heads
    faults = {
        f"hidden_size {decoder.hidden_size} is no multiple of num_attention_heads {heads}": decoder.hidden_size % heads,
        f"num_attention_heads {heads} is no multiple of num_key_value_heads {groups}": heads % (groups or heads),
        "the width of a head is odd": (decoder.head_dim or decoder.hidden_size // heads) % 2,
        f"layer_types names {len(decoder.layer_types or ())} of {decoder.num_hidden_layers} layers": (
            decoder.layer_types is not None and len(decoder.layer_types) != decoder.num_hidden_layers
        ),
    }
    for fault, found in faults.items():
        if found:
            raise EngineError(f"{file}: {fault}, which cannot be. {SAVE_AGAIN}")
    return decoder


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint.

    Raises `EngineError` where there are none, and for an index that is damaged or names others: pickles execute code
    when they are loaded.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    index = directory / SHARDS
    if not index.is_file():
        pickles = sorted(path.name for path in directory.glob("*.bin"))
        found = f"only pickled weights ({', '.join(pickles[:5])})" if pickles else "no weights"
        raise EngineError(
            f"{directory} holds {found}; expected {WEIGHTS}. Load it where you trust it and save it again with "
            "model.save_pretrained(...)."
        )
    content, _ = read_json(index, _Index, "expected the names of shards as save_pretrained writes them", EngineError)
    names, beside = sorted(set(content.weight_map.values())), {file.name for file in directory.glob("*.safetensors")}
    for name in names:
        if name not in beside:
            raise EngineError(f"{index} names {name!r}; expected a .safetensors file beside it. {SAVE_AGAIN}")
    if not names:
        raise EngineError(f"{index} names no file. {SAVE_AGAIN}")
    return [directory / name for name in names]


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file. Raises `EngineError` for one that is damaged."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise EngineError(f"The weights in {file} could not be loaded: {error}. {SAVE_AGAIN}") from error


def check_checkpoint(directory: Path) -> Decoder | EncoderDecoder:
    """Raise `EngineError` unless config.json can be, weights are safetensors, and they are as many as it describes.

    A model far larger than its weights would be filled with random numbers, or with all of the memory.
    """
    shape = read_shape(directory / CONFIG)
    stored = sum(prod(shape) for file in weight_files(directory) for shape in tensor_shapes(file).values())
    if shape.weights > SLACK * stored:
        raise EngineError(
            f"{directory / CONFIG} describes a model of {shape.weights:,} weights, but its files hold {stored:,}: "
            f"one of its sizes (vocab_size, hidden_size, ...) is wrong, or shards are missing. {SAVE_AGAIN}"
        )
    return shape
