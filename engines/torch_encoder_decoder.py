"""Encoder-decoders by PyTorch: the two modules whose traces are the exported graphs, and the reference engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.cache_utils import Cache, EncoderDecoderCache

from ..catalog.errors import EngineError
from .base import Engine, Float32, ForwardInputs, Int64
from .cache import KVCache, ReadCache
from .encoder_decoder import encoder_decoder_facts
from .footprint import footprint_of
from .reading import padded_prompts, read_first
from .torch import (
    ATTENTION,
    DTYPES,
    TorchCache,
    TorchEngine,
    additive_mask,
    cache_layer,
    load_torch_model,
    picked_rows,
    slot_positions,
    torch_threads,
    uploaded,
)

Tensors = Sequence[torch.Tensor]
EVEN = 16  # rows of a table come in multiples: what lies behind it in a file begins where vectors of 64 bytes do


class RelativeBias(torch.nn.Module):
    """What a pair of tokens adds to its attention score, by how far apart they are.

    T5 looks distances up in buckets, and buckets in a table of its first layer (arXiv 1910.10683, section 2.1); both as
    one table of all distances, as those from `relative_attention_max_distance` on are in one bucket.
    """

    table: torch.Tensor  # [distances, H]

    def __init__(self, attention: Any) -> None:
        """attention: the `T5Attention` of a stack's first layer."""
        super().__init__()
        most = int(attention.relative_attention_max_distance)
        self.least, self.most = -most, 0 if attention.is_decoder else most
        rows = -(-(self.most - self.least + 1) // EVEN) * EVEN  # more than are looked up
        buckets = attention._relative_position_bucket(
            torch.arange(self.least, self.least + rows), bidirectional=not attention.is_decoder,
            num_buckets=attention.relative_attention_num_buckets, max_distance=most,
        )  # fmt: skip
        self.register_buffer("table", attention.relative_attention_bias.weight[buckets].detach(), persistent=False)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """[B, H, T, S] of the positions of queries [B, T] and of keys [B, S]."""
        apart = (keys[:, None, :] - queries[:, :, None]).clamp(self.least, self.most) - self.least
        return F.embedding(apart, self.table).permute(0, 3, 1, 2)


def padding_mask(lengths: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
    """[B, 1, 1, P] additive: prompts of these lengths [B], padded at their ends to `width` (P)."""
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=lengths.device)
    there = torch.arange(width, device=lengths.device) < lengths[:, None]
    return torch.where(there[:, None, None], torch.zeros_like(hidden), hidden)


def with_one_gelu(stack: Any) -> Any:
    """A T5 stack whose "gelu_new" is one operator: written out, its constants would be rounded in half precision."""
    for block in stack.block:
        dense = block.layer[-1].DenseReluDense
        if isinstance(dense.act, NewGELUActivation):
            dense.act = torch.nn.GELU(approximate="tanh")
    return stack


class EncoderModule(torch.nn.Module):
    """An encoder as a graph: prompts to the keys and values that every layer of the decoder reads of them."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        model.set_attn_implementation(ATTENTION)
        own: Any = model
        self.body: Any = with_one_gelu(own.encoder)
        self.bias = RelativeBias(self.body.block[0].layer[0].SelfAttention)
        self.heads = int(model.config.num_heads)
        self.readers: Any = torch.nn.ModuleList([block.layer[1].EncDecAttention for block in own.decoder.block])

    def forward(self, input_ids: torch.Tensor, prompt_lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Prompts [B, P], padded at their ends, and their lengths [B].

        Returns key and value [B, H, P, D] of every layer of the decoder.
        """
        batch, width = input_ids.shape
        place = torch.arange(width, device=input_ids.device)[None]
        bias = self.bias(place, place)
        mask = bias + padding_mask(prompt_lengths, width, bias.dtype)
        hidden = self.body(input_ids=input_ids, attention_mask=mask).last_hidden_state
        parts = (part(hidden) for reader in self.readers for part in (reader.k, reader.v))
        return tuple(part.view(batch, width, self.heads, -1).transpose(1, 2) for part in parts)


class DecoderModule(torch.nn.Module):
    """A decoder with the inputs and outputs of the graph's contract, and what an encoder has read."""

    columns: torch.Tensor  # [C]

    def __init__(self, model: PreTrainedModel, vocabulary: NDArray[np.int64]) -> None:
        """`vocabulary` [C] holds the token ids that become the columns of `logprobs`."""
        super().__init__()
        model.set_attn_implementation(ATTENTION)
        own: Any = model
        self.body: Any = with_one_gelu(own.decoder)
        self.bias = RelativeBias(self.body.block[0].layer[0].SelfAttention)
        self.head: Any = own.lm_head
        self.register_buffer("columns", torch.from_numpy(vocabulary.copy()), persistent=False)
        # mT5 never scales, T5 where it was trained with a tied head (1.1 was not)
        self.scale = int(model.config.d_model) ** -0.5 if getattr(model.config, "scale_decoder_outputs", False) else 1.0

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logit_rows: torch.Tensor,
        slot_positions: torch.Tensor,
        prompt_lengths: torch.Tensor,
        past: Tensors,
        read: Tensors,
    ) -> tuple[torch.Tensor, ...]:
        """Shapes as in `GraphModule.forward`; prompt_lengths [B], read: key and value [B, H, P, D] as `EncoderModule`
        gives them of all layers.

        Returns log-probabilities [B, R, C] in float32, then key and value [B, H, S + T, D] of every layer.
        """
        own, prompt = _layers(past), _layers(read)
        known = EncoderDecoderCache(Cache(layers=[*own]), Cache(layers=[*prompt]))
        known.is_updated = dict.fromkeys(range(len(prompt)), True)  # read once, whatever is decoded
        mask = self.bias(position_ids, slot_positions) + attention_mask
        there = padding_mask(prompt_lengths, read[0].shape[2], mask.dtype)
        hidden = self.body(
            input_ids=input_ids,
            attention_mask=mask,
            encoder_hidden_states=read[0],  # looked at only where no keys are known
            encoder_attention_mask=there.expand(-1, -1, input_ids.shape[1], -1),  # ONNX Runtime broadcasts heads alone
            past_key_values=known,
            use_cache=True,
        ).last_hidden_state
        rows = picked_rows(hidden, logit_rows).float() * self.scale  # a number that half precision would round
        logits = self.head(rows.to(hidden.dtype))
        logprobs = F.log_softmax(logits.float(), dim=-1).index_select(-1, self.columns)
        return logprobs, *(tensor for layer in own for tensor in (layer.keys, layer.values))


def _layers(tensors: Tensors) -> list[Any]:
    """A cache's layers, of key and value in turn."""
    return [cache_layer(key, value) for key, value in zip(tensors[::2], tensors[1::2], strict=True)]


class TorchEncoderDecoder(Engine):
    """Both modules run eagerly on the CPU or a CUDA device."""

    def __init__(self, model: PreTrainedModel, vocabulary: NDArray[np.int64], *, precision: str, threads: int) -> None:
        """As of `TorchEngine`."""
        facts, columns = encoder_decoder_facts(model), len(vocabulary)
        footprint = footprint_of(facts, precision, columns=columns, rows_of_head=facts.vocabulary)
        super().__init__(columns=columns, footprint=footprint if model.device.type == "cpu" else None)
        self._encoder = EncoderModule(model).to(model.device).eval()
        self._decoder = DecoderModule(model, vocabulary).to(model.device).eval()
        self.start, self.device = int(model.config.decoder_start_token_id), model.device
        self._threads, self._dtype = threads, DTYPES[precision]

    def new_cache(self, batch: int) -> KVCache:
        raise read_first(self)

    def read(self, prompts: Sequence[Int64]) -> ReadCache:
        ids, lengths = padded_prompts(prompts)
        with torch.inference_mode(), torch_threads(self._threads):
            read = self._encoder(*uploaded((ids, lengths), self.device))
        empty = [tensor[:, :, :0] for tensor in read]
        return ReadCache(TorchCache(empty), TorchCache(read), lengths)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        if not isinstance(cache, ReadCache):
            raise EngineError(
                f"{type(self).__name__} runs on the caches it hands out (read); got {type(cache).__name__}."
            )
        own, prompts = cache.own, cache.prompts
        assert isinstance(own, TorchCache)
        assert isinstance(prompts, TorchCache)
        with torch.inference_mode(), torch_threads(self._threads):
            arrays = (
                inputs.input_ids, inputs.position_ids, inputs.visible_below, inputs.visible_slots, inputs.logit_rows,
                cache.lengths,
            )  # fmt: skip
            ids, positions, below, slots, rows, lengths = uploaded(arrays, self.device)
            mask = additive_mask(below, slots, own.length, self._dtype)
            where = slot_positions(positions, slots, own.length)
            logprobs, *own.tensors = self._decoder(
                ids, positions, mask, rows, where, lengths, own.tensors, prompts.tensors
            )
            result: Float32 = logprobs.cpu().numpy()
        return result


def load_torch_engine(
    checkpoint: Path, vocabulary: NDArray[np.int64], *, device: str, precision: str, threads: int
) -> TorchEngine | TorchEncoderDecoder:
    """An engine over a checkpoint directory of either kind; raises as `load_torch_model`.

    vocabulary [C]: token ids of the catalog, ascending; threads 0 leaves PyTorch's number.
    """
    model = load_torch_model(checkpoint, device=device, precision=precision)
    kind = TorchEncoderDecoder if model.config.is_encoder_decoder else TorchEngine
    return kind(model, vocabulary, precision=precision, threads=threads)
