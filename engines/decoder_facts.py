"""What is known of a decoder by its configuration and weights, as torch holds them."""

import torch
from transformers import PretrainedConfig, PreTrainedModel

from ..catalog.errors import EngineError
from .bundle.facts import ModelFacts
from .encoder_decoder import encoder_decoder_facts


def matrix(layer: torch.nn.Module | None) -> torch.Tensor:
    """The weight [rows, hidden] of a model's embedding or head."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, torch.Tensor):
        raise EngineError(f"Expected an embedding or a linear head with one weight matrix; got {layer}.")
    return weight


def head_dim(config: PretrainedConfig) -> int:
    """D: the width of one attention head (some configurations leave it implicit)."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def model_facts(model: PreTrainedModel) -> ModelFacts:
    """What manifests say of a model."""
    config = model.config
    if config.is_encoder_decoder:
        return encoder_decoder_facts(model)
    return ModelFacts(
        architecture=type(model).__name__,
        parameters=sum(weight.numel() for weight in model.parameters()),
        layers=int(config.num_hidden_layers),
        kv_heads=int(config.num_key_value_heads),
        head_dim=head_dim(config),
        vocabulary=len(matrix(model.get_output_embeddings())),  # type: ignore[no-untyped-call]
        context=int(config.max_position_embeddings),
        heads=int(config.num_attention_heads),
        hidden=int(config.hidden_size),
        intermediate=int(config.intermediate_size),
        slot_positions=needs_slot_positions(model),
    )


def needs_slot_positions(model: PreTrainedModel) -> bool:
    """Whether its attention asks how far apart two tokens are, so that it must be told every slot's position."""
    return False
