"""The shape of a decoder: a preset's name, LAYERSxHIDDEN, a config.json, or another checkpoint's."""

import re
from pathlib import Path

from transformers import LlamaConfig, PretrainedConfig

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


PRESETS = {
    "llama-tiny": ModelSize(layers=2, hidden=64, heads=2, intermediate=176),
    "llama-small": ModelSize(layers=4, hidden=192, heads=6, intermediate=512),
    "llama-medium": ModelSize(layers=6, hidden=256, heads=4, intermediate=688),
    "llama-68m": ModelSize(layers=2, hidden=768, heads=12, intermediate=3072),  # AtSpeed's draft (JackFram/llama-68m)
    "llama-160m": ModelSize(layers=12, hidden=768, heads=12, intermediate=3072),
}
_SHAPE = re.compile(r"(?:llama-)?(\d+)x(\d+)")


def find_config(name: str | Path | ModelSize, context: int) -> PretrainedConfig:
    """The configuration that `name` stands for; `context` positions are what the prompts need.

    Raises `OptionError` for an unknown name or a shape that cannot be, `ExportError` for a configuration
    whose model export would refuse.
    """
    instance(name, "config", (str, Path, ModelSize), "a name, a path or a ModelSize")
    if isinstance(name, ModelSize):
        return _llama(name, context)
    path = Path(name)
    if path.is_dir() or path.suffix == ".json":
        return load_config(path / "config.json" if path.is_dir() else path)
    if str(name) in PRESETS:
        return _llama(PRESETS[str(name)], context)
    if "/" in str(name) and not is_path(str(name)):
        return load_config(local(name, "config", weights=False) / "config.json")
    shape = _SHAPE.fullmatch(str(name))
    if shape is None:
        raise OptionError(
            f"got the configuration {str(name)!r}; expected one of {', '.join(PRESETS)}, LAYERSxHIDDEN such as 4x192, "
            "a config.json, a checkpoint directory or a hub's org/name."
        )
    return _llama(named_size(*map(int, shape.groups())), context)


def named_size(layers: int, hidden: int) -> ModelSize:
    """The usual proportions: heads of 64 (below 256: of 32) and 8/3 times as wide inside."""
    width = 64 if hidden >= 256 else 32
    if layers < 1 or hidden < width or hidden % width:
        raise OptionError(f"got {layers}x{hidden}; expected at least one layer and a multiple of {width} hidden units.")
    return ModelSize(layers=layers, hidden=hidden, heads=hidden // width, intermediate=-(-hidden * 8 // 48) * 16)


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
