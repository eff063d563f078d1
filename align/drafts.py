"""Where a draft comes from: a checkpoint, a shape, or the target's own first layers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..catalog.errors import OptionError
from ..catalog.items import Catalog
from ..export.checkpoint import Checkpoint
from ..export.hub import Bar, unseen
from ..export.hub_names import is_path
from ..export.local import local
from .training.sources import FreshModel, Pretrained, Source


@final
@dataclass(frozen=True)
class TargetLayers(Source):
    """The target's embeddings, its first layers, its last norm and its head, as a draft of their own.

    Of an encoder-decoder, the first layers of either side. shared: embeddings and head stay the target's, and only
    the layers and the last norm learn (an early exit of the target). No pretrained small model is needed either way.
    """

    target: Path  # or a hub's, which is fetched at once
    layers: int
    shared: bool = False
    epochs: ClassVar[float] = 10
    rate: ClassVar[float] = 0.25  # of `train`; an alignment has a rate of its own

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", local(self.target, "target"))

    @property
    def origin(self) -> Path:
        return self.target

    def tokenizer(self, catalog: Catalog, text: str) -> PreTrainedTokenizerBase:
        return Checkpoint.open(self.target).tokenizer

    def model(self, tokenizer: PreTrainedTokenizerBase, catalog: Catalog, context: int, seed: int) -> PreTrainedModel:
        model = Checkpoint.open(self.target).load("fp32", catalog.tokens)
        count = min(len(layers) for layers in _stacks(model))
        if not 1 <= self.layers <= count:
            raise OptionError(
                f"got {self.layers} of the target's layers; expected 1 to {count}, as many as {self.target} has."
            )
        for layers in _stacks(model):
            del layers[self.layers :]
        model.config.num_hidden_layers = self.layers
        if model.config.is_encoder_decoder:
            model.config.num_decoder_layers = self.layers
        if getattr(model.config, "layer_types", None):
            model.config.layer_types = model.config.layer_types[: self.layers]
        model.requires_grad_(True)
        if self.shared:
            for module in (model.get_input_embeddings(), model.get_output_embeddings()):  # type: ignore[no-untyped-call]
                module.requires_grad_(False)
        return model


def _stacks(model: Any) -> list[torch.nn.ModuleList]:
    """The layers of a decoder; of an encoder-decoder, those of the encoder and those of the decoder.

    Raises `OptionError` for a model that has none one by one.
    """
    if model.config.is_encoder_decoder:
        return [model.encoder.block, model.decoder.block]
    layers = getattr(model.get_decoder(), "layers", None)
    if not isinstance(layers, torch.nn.ModuleList):
        raise OptionError(
            f"the target is a {type(model).__name__}, whose layers cannot be taken one by one. Give a draft of its own "
            "with --draft."
        )
    return [layers]


def find_draft(draft: str | None, target: Path, layers: int | None, shared: bool, bar: Bar = unseen) -> Source:
    """The draft that a command asks for; one of a hub is fetched, which `bar` shows.

    Raises `OptionError` for what cannot be combined, and as `local` does.
    """
    if (draft is None) == (layers is None):
        got = "neither" if draft is None else "both"
        raise OptionError(
            "a draft is either --draft (a checkpoint's directory, or the shape of a fresh one) or "
            f"--from-target-layers; got {got}."
        )
    if layers is not None:
        return TargetLayers(target, layers, shared)
    if shared:
        raise OptionError("--share-embeddings is for --from-target-layers: another draft's embeddings are its own.")
    assert draft is not None
    directory = Path(draft)
    if directory.is_dir() and (any(directory.glob("*.safetensors")) or any(directory.glob("*.bin"))):
        return Pretrained(directory)
    if "/" in draft and not directory.exists() and not is_path(draft):
        return Pretrained(local(draft, "draft", bar=bar))
    return FreshModel(draft, target)
