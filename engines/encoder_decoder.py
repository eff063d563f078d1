"""What is known of an encoder-decoder by its configuration and weights: T5 and mT5, whose positions are relative."""

from transformers import PretrainedConfig, PreTrainedModel

from .bundle.facts import EncoderFacts, ModelFacts

CONTEXT = 512  # tokens that T5 and mT5 were trained with at the least, where config.json has no n_positions


def encoder_context(config: PretrainedConfig) -> int:
    """Tokens of a prompt, or of what is decoded, that the model was made for."""
    return int(getattr(config, "n_positions", None) or CONTEXT)


def encoder_decoder_facts(model: PreTrainedModel) -> ModelFacts:
    """What manifests say of an encoder-decoder: of its decoder, and what `EncoderFacts` are."""
    config = model.config
    return ModelFacts(
        architecture=type(model).__name__,
        parameters=sum(weight.numel() for weight in model.parameters()),
        layers=int(config.num_decoder_layers),
        kv_heads=int(config.num_heads),
        head_dim=int(config.d_kv),
        vocabulary=len(model.lm_head.weight),
        context=encoder_context(config),
        heads=int(config.num_heads),
        hidden=int(config.d_model),
        intermediate=int(config.d_ff),
        slot_positions=True,
        encoder=EncoderFacts(layers=int(config.num_layers), start=int(config.decoder_start_token_id)),
    )
