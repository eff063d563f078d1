"""What is known of a decoder: by its configuration under the names that all architectures share, and by a call of it.

Layers, heads and their width are read off the cache that a call leaves, which is what graphs are fed with; how
configurations spell them differs.
"""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..catalog.errors import EngineError, is_fault, said
from .bundle.facts import ModelFacts
from .encoder_decoder import encoder_context, encoder_decoder_facts

PLAIN = (DynamicLayer, DynamicSlidingWindowLayer)  # cache layers of keys and values that grow by what a call adds
BOUNDED_ROPE = ("dynamic", "longrope")  # frequencies that change where a sequence grows beyond its first context
WIDENING = 4  # of an MLP whose width the configuration leaves to its model


def matrix(layer: torch.nn.Module | None) -> torch.Tensor:
    """The weight [rows, hidden] of a model's embedding or head."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, torch.Tensor):
        raise EngineError(f"Expected an embedding or a linear head with one weight matrix; got {layer}.")
    return weight


def model_facts(model: PreTrainedModel) -> ModelFacts:
    """What manifests say of a model. Raises `EngineError` where its cache is none that a graph can be fed with."""
    config = model.config
    if config.is_encoder_decoder:
        return encoder_decoder_facts(model)
    layers, kv_heads, head_dim = cache_shape(model)
    hidden = int(config.hidden_size)
    return ModelFacts(
        architecture=type(model).__name__,
        parameters=sum(weight.numel() for weight in model.parameters()),
        layers=layers,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=len(matrix(model.get_output_embeddings())),  # type: ignore[no-untyped-call]
        context=context_of(config),
        heads=int(config.num_attention_heads),
        hidden=hidden,
        intermediate=_intermediate(config) or WIDENING * hidden,
        slot_positions=needs_slot_positions(model),
    )


def cache_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """Layers, and of each of them heads of keys and their width: of what two tokens leave in the model's cache.

    Raises `EngineError` where that is not one key and one value of one shape for every token in every layer.
    """
    name, tokens = type(model).__name__, torch.zeros(1, 2, dtype=torch.int64, device=model.device)
    try:
        with torch.inference_mode():
            cache = model(input_ids=tokens, use_cache=True).get("past_key_values")
    except BaseException as error:
        if not is_fault(error):
            raise
        raise EngineError(f"{name} cannot be called, as its config.json describes it: {said(error)}.") from error
    layers = getattr(cache, "layers", None)
    if not layers:
        raise EngineError(
            f"{name} gives {type(cache).__name__} as its cache; expected keys and values of every layer. An encoder "
            'whose config.json lacks "is_decoder": true keeps none; models that keep a state instead do not work.'
        )
    odd = sorted({type(layer).__name__ for layer in layers if type(layer) not in PLAIN})
    if odd:
        raise EngineError(f"{name} keeps {', '.join(odd)} in its cache; only keys and values that grow work.")
    shapes = {tuple(tensor.shape) for layer in layers for tensor in (layer.keys, layer.values)}
    if len(shapes) != 1 or len(shape := next(iter(shapes))) != 4 or (shape[0], shape[2]) != (1, 2):
        raise EngineError(
            f"{name} keeps keys and values of the shapes {', '.join(map(str, sorted(shapes)))} for two tokens; "
            "expected one shape [1, heads, 2, width] of all its layers."
        )
    return len(layers), int(shape[1]), int(shape[3])


def context_of(config: PretrainedConfig) -> int:
    """Positions that a model may be asked about: what it was made for, and below where its rotary frequencies change.

    An encoder-decoder takes as many for a prompt as for what is decoded. Raises `EngineError` where the configuration
    does not say.
    """
    if config.is_encoder_decoder:
        return encoder_context(config)
    context = getattr(config, "max_position_embeddings", None)
    if not isinstance(context, int) or context < 1:
        raise EngineError(f"{type(config).__name__} does not say max_position_embeddings; expected a number.")
    bounds = [
        int(bound)
        for rope in ropes(config)
        if rope.get("rope_type") in BOUNDED_ROPE and (bound := rope.get("original_max_position_embeddings"))
    ]
    return min([context, *bounds])


def ropes(config: PretrainedConfig) -> list[dict[str, Any]]:
    """The settings of a model's rotary embeddings: one of all layers, or one of each type of them."""
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    return nested or [rope]


def windows(config: PretrainedConfig) -> list[int | None]:
    """Of every layer: how many positions back it sees, itself counted; None where that is the whole context."""
    context = context_of(config)
    spans = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers]
    return [int(span) if span and span < context else None for span in spans]


def longest_window(config: PretrainedConfig) -> int:
    """The longest span below the context that anything in a configuration calls a window; 0: none.

    Models may look through one of which their layers' caches say nothing.
    """
    spans = [*windows(config), *(value for name, value in config.to_dict().items() if "window" in name)]
    return max((span for span in spans if isinstance(span, int) and span < context_of(config)), default=0)


def needs_slot_positions(model: PreTrainedModel) -> bool:
    """Whether its attention asks how far apart two tokens are, so that it must be told every slot's position."""
    return any(window is not None for window in windows(model.config))


def _intermediate(config: PretrainedConfig) -> int | None:
    """Width of the widest MLP, all experts of a token taken together."""
    return max(_widths(config), default=None)


def _widths(config: PretrainedConfig) -> Iterator[int]:
    for name in ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"):
        if width := getattr(config, name, None):
            yield int(width)
    if width := getattr(config, "moe_intermediate_size", None):
        yield int(width) * int(getattr(config, "num_experts_per_tok", None) or 1)
