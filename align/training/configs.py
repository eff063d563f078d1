"""The shape of a model: a preset's name, LAYERSxHIDDEN, a config.json, or another checkpoint's."""

import re
from pathlib import Path

from transformers import LlamaConfig, PretrainedConfig, T5Config

from ...catalog.checks import Checked, instance, within
from ...catalog.errors import OptionError
from ...export.checkpoint import load_config
from ...export.hub_names import is_path
from ...export.local import local

WIDE = 512  # hidden width from which initial weights have the usual spread
SPREAD, NARROW_SPREAD = 0.02, 0.1  # the usual one costs narrow layers most of their steps
CONTEXT = 512  # positions, where the prompts need no more


class ModelSize(Checked, frozen=True, kw_only=True):
    """The shape of a Llama decoder."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    context: int | None = None  # positions; default: 512, or what the prompts need

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, 1, **dict.fromkeys(("layers", "hidden", "heads", "intermediate", "context"), 10**6))


class T5Size(Checked, frozen=True, kw_only=True):
    """The shape of a T5 encoder-decoder (Raffel et al. 2020, arXiv 1910.10683), as deep on both sides."""

    layers: int  # of the encoder, and of the decoder
    hidden: int
    heads: int
    head_dim: int  # heads * head_dim need not be `hidden`
    intermediate: int
    gated: bool = False  # T5 1.1's gated GELU in place of ReLU
    dropout: float = 0.0  # while it trains; 0.1, as published, costs short runs more than it brings
    context: int | None = None  # tokens of a prompt; default: 512, or what the prompts need

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, 1, **dict.fromkeys(("layers", "hidden", "heads", "head_dim", "intermediate", "context"), 10**6))
        if not 0 <= self.dropout < 1:
            raise OptionError(f"got a dropout of {self.dropout:g}; expected a share, 0 to below 1.")


Size = ModelSize | T5Size

PRESETS: dict[str, Size] = {
    "llama-tiny": ModelSize(layers=2, hidden=64, heads=2, intermediate=176),
    "llama-small": ModelSize(layers=4, hidden=192, heads=6, intermediate=512),
    "llama-medium": ModelSize(layers=6, hidden=256, heads=4, intermediate=688),
    "llama-68m": ModelSize(layers=2, hidden=768, heads=12, intermediate=3072),  # AtSpeed's draft (JackFram/llama-68m)
    "llama-160m": ModelSize(layers=12, hidden=768, heads=12, intermediate=3072),
    "t5-tiny": T5Size(layers=2, hidden=64, heads=2, head_dim=32, intermediate=256),
    "t5-small": T5Size(layers=6, hidden=512, heads=8, head_dim=64, intermediate=2048, dropout=0.1),  # as published
    "t5-tiger": T5Size(layers=4, hidden=128, heads=6, head_dim=64, intermediate=1024, dropout=0.1),  # arXiv 2305.05065
}
_SHAPE = re.compile(r"(?:llama-|(t5:))?(\d+)x(\d+)")


def find_config(name: str | Path | Size, context: int) -> PretrainedConfig:
    """The configuration that `name` stands for; `context` positions are what the prompts need.

    Raises `OptionError` for an unknown name or a shape that cannot be, `ExportError` for a configuration
    whose model export would refuse.
    """
    instance(name, "config", (str, Path, ModelSize, T5Size), "a name, a path, a ModelSize or a T5Size")
    if isinstance(name, ModelSize | T5Size):
        return _config(name, context)
    path = Path(name)
    if path.is_dir() or path.suffix == ".json":
        return load_config(path / "config.json" if path.is_dir() else path)
    if str(name) in PRESETS:
        return _config(PRESETS[str(name)], context)
    if "/" in str(name) and not is_path(str(name)):
        return load_config(local(name, "config", weights=False) / "config.json")
    shape = _SHAPE.fullmatch(str(name))
    if shape is None:
        raise OptionError(
            f"got the configuration {str(name)!r}; expected one of {', '.join(PRESETS)}, LAYERSxHIDDEN such as 4x192 "
            "or t5:4x128, a config.json, a checkpoint directory or a hub's org/name."
        )
    kind, layers, hidden = shape.groups()
    try:
        return _config((named_size if kind is None else named_t5)(int(layers), int(hidden)), context)
    except OptionError as error:
        raise OptionError(f"the configuration {str(name)!r}: {error}") from None


def named_size(layers: int, hidden: int) -> ModelSize:
    """The usual proportions: heads of 64 (below 256: of 32) and 8/3 times as wide inside."""
    width = _head_width(layers, hidden)
    return ModelSize(layers=layers, hidden=hidden, heads=hidden // width, intermediate=-(-hidden * 8 // 48) * 16)


def named_t5(layers: int, hidden: int) -> T5Size:
    """T5's proportions: heads as of a decoder, and 4 times as wide inside."""
    width = _head_width(layers, hidden)
    return T5Size(layers=layers, hidden=hidden, heads=hidden // width, head_dim=width, intermediate=4 * hidden)


def _head_width(layers: int, hidden: int) -> int:
    width = 64 if hidden >= 256 else 32
    if layers < 1 or hidden < width or hidden % width:
        raise OptionError(f"got {layers}x{hidden}; expected at least one layer and a multiple of {width} hidden units.")
    return width


def _config(size: Size, context: int) -> PretrainedConfig:
    return _llama(size, context) if isinstance(size, ModelSize) else _t5(size, context)


def _llama(size: ModelSize, context: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=size.context or max(CONTEXT, context),
        tie_word_embeddings=True,
        initializer_range=NARROW_SPREAD if size.hidden < WIDE else SPREAD,
    )


def _t5(size: T5Size, context: int) -> T5Config:
    config = T5Config(
        d_model=size.hidden,
        d_kv=size.head_dim,
        d_ff=size.intermediate,
        num_layers=size.layers,
        num_heads=size.heads,
        feed_forward_proj="gated-gelu" if size.gated else "relu",
        dropout_rate=size.dropout,
    )
    config.n_positions = size.context or max(CONTEXT, context)  # as older T5s say; distances have no end
    return config
