"""The reference engine: the checkpoint run by PyTorch, and the module whose trace is the exported graph."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import Cache, DynamicLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..catalog.errors import EngineError, is_fault, said
from .attention import ATTENTION, keep_frequencies, rows_alone
from .base import Engine, Float32, ForwardInputs, Int64
from .cache import KVCache
from .checkpoint_guard import CONFIG, SAVE_AGAIN, Decoder, EncoderDecoder, check_checkpoint
from .decoder_facts import matrix, model_facts, windows
from .footprint import footprint_of
from .generation import token_settings

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class GraphModule(torch.nn.Module):
    """A causal language model with the inputs and outputs of the graph's contract (docs/design.md)."""

    columns: torch.Tensor  # [C]

    def __init__(self, model: PreTrainedModel, vocabulary: NDArray[np.int64]) -> None:
        """`vocabulary` [C] holds the token ids that become the columns of `logprobs`."""
        super().__init__()
        model.set_attn_implementation(ATTENTION)
        model.set_experts_implementation(ATTENTION)
        keep_frequencies(model)
        self.model = model
        self.register_buffer("columns", torch.from_numpy(vocabulary.copy()), persistent=False)
        # of text: all rows of the head as they are
        self.whole = np.array_equal(vocabulary, np.arange(len(matrix(model.get_output_embeddings()))))  # type: ignore[no-untyped-call]
        self.windows = windows(model.config)

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logit_rows: torch.Tensor,
        past: Sequence[torch.Tensor],
        slot_positions: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Shapes as in `ForwardInputs`; past: key and value [B, G, S, D] of every layer in turn.

        slot_positions [B, S + T]: of models whose attention asks for it (`ModelFacts.slot_positions`).

        Returns log-probabilities [B, R, C] in float32, then key and value [B, G, S + T, D] of every layer.
        """
        layers: list[Any] = [cache_layer(key, value) for key, value in zip(past[::2], past[1::2], strict=True)]
        with rows_alone(self.model.get_decoder(), logit_rows):  # type: ignore[no-untyped-call]
            logits = self.model(
                input_ids=input_ids,
                attention_mask=self._masks(attention_mask, position_ids, slot_positions),
                position_ids=position_ids,
                past_key_values=Cache(layers=[*layers]),
                use_cache=True,
            ).logits  # [B, R, rows of the head]
        logprobs = F.log_softmax(logits.float(), dim=-1)
        if not self.whole:
            logprobs = logprobs.index_select(-1, self.columns)
        return logprobs, *(tensor for layer in layers for tensor in (layer.keys, layer.values))

    def _masks(
        self, mask: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor | None
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """What its layers see: the mask, or where some look through a window, that of each type of layer."""
        spans = {span for span in self.windows if span is not None}
        if slots is None or not spans:
            return mask
        (span,) = spans
        near = positions[:, None, :, None] - slots[:, None, None, :] < span
        through = torch.where(near, mask, torch.finfo(mask.dtype).min)
        return {"full_attention": mask, "sliding_attention": through} if None in self.windows else through


def cache_layer(key: torch.Tensor, value: torch.Tensor) -> DynamicLayer:
    """A cache layer that holds `key` and `value` as they are (its `update` would copy them first)."""
    layer = DynamicLayer()  # type: ignore[no-untyped-call]
    layer.lazy_initialization(key, value)
    layer.keys, layer.values = key, value
    return layer


def load_model(directory: Path, dtype: torch.dtype, config: PretrainedConfig | None = None) -> PreTrainedModel:
    """Load a causal language model or an encoder-decoder, complete, from safetensors in a local directory.

    Raises `EngineError` when weights are missing, left over or of another shape, and as `check_checkpoint` does. Tied
    heads may be absent from the file. Buffers (the rotary frequencies) stay in float32 whatever `dtype` is. Of how
    the checkpoint would have texts generated, the model knows the special tokens alone.
    """
    shape = check_checkpoint(directory)
    kind: Any = AutoModelForSeq2SeqLM if isinstance(shape, EncoderDecoder) else AutoModelForCausalLM
    try:
        loaded: Any = kind.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they come back in the report
            output_loading_info=True,
            attn_implementation=_attention(shape),  # whatever config.json names: some are downloaded
            generation_config=GenerationConfig(**token_settings(directory)),  # type: ignore[no-untyped-call]
        )
    except BaseException as error:
        if not is_fault(error):
            raise
        remedy = "It needs a machine with more memory." if "memory" in said(error).lower() else SAVE_AGAIN
        raise EngineError(
            f"{directory} could not be loaded as its {CONFIG} describes it: {said(error)}. {remedy}"
        ) from error
    model: PreTrainedModel
    model, report = loaded
    faults = [
        f"{len(names)} {kind.removesuffix('_keys')} (first: {sorted(map(str, names))[0]})"
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if (names := report[kind])
    ]
    if faults:
        raise EngineError(
            f"The weights in {directory} do not fit {type(model).__name__} as config.json describes it: "
            f"{', '.join(faults)}. Save the whole model again with save_pretrained."
        )
    torch.nn.Module.eval(model).requires_grad_(False)
    return model


def _attention(shape: Decoder | EncoderDecoder) -> str:
    """Which of transformers' own kinds of attention a checkpoint's architecture is loaded with: the faster it has."""
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(shape.model_type, "")
    return "sdpa" if getattr(getattr(transformers, str(name), None), "_supports_sdpa", True) else "eager"


class TorchCache(KVCache):
    """Key and value [B, G, S, D] of every layer in turn, as tensors on the engine's device."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.tensors = list(tensors)

    @property
    def batch(self) -> int:
        return int(self.tensors[0].shape[0])

    @property
    def length(self) -> int:
        return int(self.tensors[0].shape[2])

    def copy(self) -> "TorchCache":
        return TorchCache(self.tensors)

    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        with torch.inference_mode():
            row, *rest = uploaded([rows] if slots is None else [rows, slots], self.tensors[0].device)
            if not rest:
                self.tensors = [tensor[row] for tensor in self.tensors]
                return
            slot = rest[0]
            self.tensors = [t.transpose(1, 2)[row[:, None], slot].transpose(1, 2).contiguous() for t in self.tensors]

    def join(self, other: KVCache) -> None:
        assert isinstance(other, TorchCache)
        length = max(self.length, other.length)
        with torch.inference_mode():
            self.tensors = [
                torch.cat([torch.nn.functional.pad(t, (0, 0, 0, length - t.shape[2])) for t in pair])
                for pair in zip(self.tensors, other.tensors, strict=True)
            ]


class TorchEngine(Engine):
    """A `GraphModule` run eagerly on the CPU or a CUDA device."""

    def __init__(self, model: PreTrainedModel, vocabulary: NDArray[np.int64], *, precision: str, threads: int) -> None:
        """`model` holds its weights in `precision` already; `threads` 0 leaves PyTorch's number as it is."""
        facts, columns = model_facts(model), len(vocabulary)
        footprint = footprint_of(facts, precision, columns=columns, rows_of_head=facts.vocabulary)
        super().__init__(columns=columns, footprint=footprint if model.device.type == "cpu" else None)
        self._graph = GraphModule(model, vocabulary).to(model.device).eval()
        self.device = model.device
        self._threads = threads
        self._layers, self._slot = facts.layers, (facts.kv_heads, 0, facts.head_dim)
        self._dtype, self._slot_positions = DTYPES[precision], facts.slot_positions

    def new_cache(self, batch: int) -> TorchCache:
        shape = (batch, *self._slot)
        return TorchCache([torch.empty(shape, dtype=self._dtype, device=self.device)] * (2 * self._layers))

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        if not isinstance(cache, TorchCache):
            raise EngineError(f"A TorchEngine runs on the caches it hands out (new_cache); got {type(cache).__name__}.")
        with torch.inference_mode(), torch_threads(self._threads):
            arrays = (
                inputs.input_ids, inputs.position_ids, inputs.visible_below, inputs.visible_slots, inputs.logit_rows,
            )  # fmt: skip
            ids, positions, below, slots, rows = uploaded(arrays, self.device)
            mask = additive_mask(below, slots, cache.length, self._dtype)
            where = slot_positions(positions, slots, cache.length) if self._slot_positions else None
            logprobs, *cache.tensors = self._graph(ids, positions, mask, rows, cache.tensors, where)
            result: Float32 = logprobs.cpu().numpy()
        return result


def uploaded(arrays: Sequence[Int64], device: torch.device) -> list[torch.Tensor]:
    """Arrays as tensors on a device, in one copy; on CUDA from pinned memory, so that the host does not wait."""
    flat = torch.from_numpy(np.concatenate([array.ravel() for array in arrays]))
    if device.type == "cuda":
        flat = flat.pin_memory()
    parts = torch.split(flat.to(device, non_blocking=True), [array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]


def additive_mask(below: torch.Tensor, slots: torch.Tensor, past: int, dtype: torch.dtype) -> torch.Tensor:
    """`engines.mask.dense_mask` [B, 1, T, S + T] on the tensors' device: only indices cross the bus."""
    width = past + below.shape[1]
    seen = torch.arange(width, device=below.device) < below[:, :, None]
    spare = torch.nn.functional.pad(seen, (0, 1))  # one column more, for the slots that are none
    spare.scatter_(2, torch.where(slots < 0, width, slots), True)
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=below.device)
    return torch.where(spare[:, None, :, :width], torch.zeros_like(hidden), hidden)


def slot_positions(positions: torch.Tensor, slots: torch.Tensor, past: int) -> torch.Tensor:
    """`engines.attention_mask.slot_positions` [B, S + T] on the tensors' device."""
    width = past + positions.shape[1]
    every = torch.arange(width + 1, device=positions.device).repeat(len(positions), 1)  # one more, for slots of none
    named = slots >= 0
    behind = named.flip(2).cumsum(2).flip(2) - 1
    place = torch.where(named, slots, width).flatten(1)
    return every.scatter(1, place, (positions[:, :, None] - behind).flatten(1))[:, :width]


def load_torch_model(checkpoint: Path, *, device: str, precision: str) -> PreTrainedModel:
    """A checkpoint directory (a bundle's `target/checkpoint`) as a model on device "cpu" or "cuda".

    Raises `EngineError` when the directory or the device cannot be used.
    """
    if not (checkpoint / "config.json").is_file():
        raise EngineError(
            f"{checkpoint} holds no checkpoint, which the torch engine needs. Export the bundle with its checkpoints."
        )
    if precision not in DTYPES:
        raise EngineError(f"The torch engine runs in {', '.join(DTYPES)}; got precision {precision!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise EngineError("PyTorch finds no CUDA device here. Use device cpu, or install a CUDA build of torch.")
    model = load_model(checkpoint, DTYPES[precision])
    torch.nn.Module.to(model, device)
    return model


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run with `count` intra-op threads, then give back what the caller's thread had; 0 changes nothing."""
    before = torch.get_num_threads()
    if count in (0, before):
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
