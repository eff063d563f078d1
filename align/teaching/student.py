"""What a model that learns thinks of a batch's trees: one forward pass, with gradients."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...engines.torch_encoder_decoder import DecoderModule, EncoderModule
from .batch import TreeBatch

NO_COLUMNS = np.zeros(0, np.int64)  # the whole vocabulary is looked at


def child_logprobs(model: Any, batch: TreeBatch) -> torch.Tensor:
    """The model's log-probability of every child given its node [c], normalised over the whole vocabulary."""
    logprobs = _behind_prompts(model, batch) if batch.read_ids is None else _through_encoder(model, batch)
    return logprobs[batch.parent, batch.token]


def _behind_prompts(model: Any, batch: TreeBatch) -> torch.Tensor:
    """[n, vocabulary] of a decoder, over prompts and trees."""
    hidden = model.get_decoder()(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids, use_cache=False
    ).last_hidden_state
    logits: torch.Tensor = model.get_output_embeddings()(_at_nodes(hidden, batch))
    return logits.float().log_softmax(-1)


def _through_encoder(model: Any, batch: TreeBatch) -> torch.Tensor:
    """[n, vocabulary] of an encoder-decoder: each prompt is read once, whatever is decoded."""
    assert batch.read_ids is not None
    assert batch.read_lengths is not None
    encoder, decoder = EncoderModule(model), DecoderModule(model, NO_COLUMNS)
    read = encoder(batch.read_ids, batch.read_lengths)
    past = [tensor[:, :, :0] for tensor in read]  # as many heads, as wide
    hidden, _ = decoder.decoded(
        batch.input_ids, batch.position_ids, batch.attention_mask, batch.position_ids, batch.read_lengths, past, read
    )
    return decoder.logprobs(_at_nodes(hidden, batch))


def _at_nodes(hidden: torch.Tensor, batch: TreeBatch) -> torch.Tensor:
    """[n, H] of the last layer [B, T, H]."""
    return F.embedding(batch.query, hidden.flatten(0, 1))
