"""Attention and experts as graphs have them, whatever architecture a model is of; registered with transformers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel
from transformers.integrations.moe import ExpertsInterface
from transformers.modeling_utils import AttentionInterface

from .decoder_facts import BOUNDED_ROPE

ATTENTION = "specbeam"  # the name of both in transformers


def masked_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention that takes the additive mask as given, and grouped heads without repeating them.

    query [B, H, T, D], key and value [B, G, S + T, D], attention_mask [B, 1, T, S + T]; returns
    [B, T, H, D]. Transformers' own function would repeat each key H / G times, in the graph too. softcap: scores are
    kept below it by a tanh (Gemma 2). s_aux [H]: a score of no token that takes its share of the softmax (gpt-oss).
    Windows are in the mask.
    """
    grouped = query.shape[1] != key.shape[1]
    if s_aux is not None:
        key, value, attention_mask = with_sink(key, value, attention_mask, s_aux)
    if softcap is not None:
        mixed = capped_attention(query, key, value, attention_mask, scaling, softcap)
    elif grouped and query.is_cuda and attention_mask.shape[1] == 1:
        mixed = folded_attention(query, key, value, attention_mask, scaling)
    else:
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=grouped
        )
    return mixed.transpose(1, 2).contiguous(), None


def with_sink(
    key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, sink: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One slot more, in front: its key and value are zeros, so that its score is its mask, which is `sink` [H]."""
    batch, _, new, _ = mask.shape
    own = sink.to(mask.dtype)[None, :, None, None].expand(batch, -1, new, 1)
    mask = torch.cat([own, mask.expand(-1, len(sink), -1, -1)], dim=3)
    nothing = torch.zeros_like(key[:, :, :1])
    return torch.cat([nothing, key], dim=2), torch.cat([nothing, value], dim=2), mask


def capped_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float | None, cap: float
) -> torch.Tensor:
    """Attention [B, H, T, D] written out, scores going through cap * tanh(score / cap) before the mask is added.

    Heads that share a key are taken as more queries of it.
    """
    (batch, heads, new, width), groups = query.shape, key.shape[1]
    share = heads // groups
    scale = width**-0.5 if scale is None else scale
    folded = query.reshape(batch, groups, share * new, width)
    scores = torch.tanh(folded @ key.transpose(2, 3) * (scale / cap)) * cap  # [B, G, H / G * T, S + T]
    scores = scores.reshape(batch, groups, share, new, -1) + mask[:, :, None]
    weights = scores.float().softmax(-1).to(query.dtype)
    return (weights.reshape(batch, groups, share * new, -1) @ value).reshape(batch, heads, new, width)


def folded_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float | None
) -> torch.Tensor:
    """Grouped-query attention [B, H, T, D] as plain attention of H / G times as many queries.

    PyTorch's memory-efficient kernel takes a mask but no groups, its flash kernel groups but no mask
    (2.13, transformers/cuda/sdp_utils.cpp): folded, the keys are repeated by neither.
    """
    (batch, heads, new, width), groups = query.shape, key.shape[1]
    share = heads // groups
    folded = query.reshape(batch, groups, share * new, width)
    mixed = F.scaled_dot_product_attention(folded, key, value, attn_mask=mask.repeat(1, 1, share, 1), scale=scale)
    return mixed.reshape(batch, heads, new, width)


def all_experts(
    experts: Any, hidden: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """What the chosen experts make of tokens [N, H], every expert computed for every token.

    top_k_index, top_k_weights [N, k]. Neither which experts are chosen nor how often shapes a tensor, so that one
    graph serves all calls; a call of more than a few tokens reads all experts' weights anyway.
    """

    def linear(tokens: torch.Tensor, name: str) -> torch.Tensor:  # of [1 or E, N, ...]
        weight = getattr(experts, name)
        result: torch.Tensor = tokens @ (weight if experts.is_transposed else weight.transpose(1, 2))
        if experts.has_bias:
            result = result + getattr(experts, f"{name}_bias")[:, None]
        return result

    if experts.has_gate:
        inner = experts._apply_gate(linear(hidden[None], "gate_up_proj"))
    else:
        inner = experts.act_fn(linear(hidden[None], "up_proj"))
    outer = linear(inner, "down_proj")  # [E, N, H]
    if experts.has_post_expert_norm:
        outer = experts.post_expert_norm(outer)
    each = torch.arange(len(outer), device=hidden.device)[:, None, None]
    weights = torch.where(top_k_index == each, top_k_weights, 0).sum(-1)[:, :, None].to(outer.dtype)  # [E, N, 1]
    mixed: torch.Tensor = torch.where(weights != 0, outer * weights, 0).sum(0)  # one that was not asked may overflow
    return mixed


AttentionInterface.register(ATTENTION, masked_attention)
ExpertsInterface.register(ATTENTION, all_experts)


def picked_rows(hidden: torch.Tensor, logit_rows: torch.Tensor) -> torch.Tensor:
    """[B, R, hidden] of [B, T, hidden]: a plain Gather, before the head."""
    batch, length = hidden.shape[:2]
    flat = logit_rows + length * torch.arange(batch, device=logit_rows.device)[:, None]
    return F.embedding(flat, hidden.flatten(0, 1))


@contextmanager
def rows_alone(body: torch.nn.Module, logit_rows: torch.Tensor) -> Iterator[None]:
    """While a model runs, its body gives the hidden states of `logit_rows` [B, R] alone: what its head computes is
    then of these, with all that an architecture does to its logits."""

    def pick(_: torch.nn.Module, __: Any, output: Any) -> Any:
        output.last_hidden_state = picked_rows(output.last_hidden_state, logit_rows)
        return output

    hook = body.register_forward_hook(pick)
    try:
        yield
    finally:
        hook.remove()


def keep_frequencies(model: PreTrainedModel) -> None:
    """Let rotary embeddings never ask how long a sequence is: within `context_of` their frequencies do not change."""
    for module in model.modules():
        kind = getattr(module, "rope_type", None)
        if kind in BOUNDED_ROPE:
            module.rope_type = "default"  # type: ignore[assignment]  # of the frequencies that it has
