"""Where a draft comes from: a checkpoint, a shape, or the target's own first layers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..catalog.errors import OptionError
from ..catalog.items import Catalog
from ..export.checkpoint import Checkpoint
from .training.sources import FreshModel, Pretrained, Source


@final
@dataclass(frozen=True)
class TargetLayers(Source):
    """The target's embeddings, its first layers, its last norm and its head, as a draft of their own.

    Of an encoder-decoder, the first layers of either side. shared: embeddings and head stay the target's, and only
    the layers and the last norm learn (an early exit of the target). No pretrained small model is needed either way.
    """

    target: Path
    layers: int
    shared: bool = False
    epochs: ClassVar[float] = 10
    rate: ClassVar[float] = 0.25  # of `train`; an alignment has a rate of its own

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
    """The layers of a decoder; of an encoder-decoder, those of the encoder and those of the decoder."""
    if model.config.is_encoder_decoder:
        return [model.encoder.block, model.decoder.block]
    return [model.get_decoder().layers]


def find_draft(draft: str | None, target: Path, layers: int | None, shared: bool) -> Source:
    """The draft that a command asks for. Raises `OptionError` for what cannot be combined."""
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
    return FreshModel(draft, target)
