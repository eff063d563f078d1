"""An encoder-decoder to its two graphs: what decodes, and what reads prompts."""

import gc
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..engines.bundle.facts import ENCODER
from ..engines.torch_encoder_decoder import DecoderModule, EncoderModule
from ..graphs import EXTERNAL_BYTES
from ..graphs.files import Progress
from .onnx import Axes, Traced, write_graph

BATCH, PROMPT = 2, 11  # to trace with


def export_graphs(
    model: PreTrainedModel, vocabulary: NDArray[np.int64], path: Path, *, external_bytes: int = EXTERNAL_BYTES,
    progress: Progress = lambda done, total: None,
) -> None:  # fmt: skip
    """As `onnx.export_graph`: the decoder's graph to `path`, and the encoder's beside it."""
    export_decoder(model, vocabulary, path, external_bytes, progress)
    gc.collect()  # all that the trace left
    export_encoder(model, path.with_name(ENCODER), external_bytes, progress)


def export_encoder(model: PreTrainedModel, path: Path, external_bytes: int, progress: Progress) -> None:
    """Write the graph of a model's encoder; see `export_graph`."""
    auto = torch.export.Dim.AUTO
    example = torch.zeros(BATCH, PROMPT, dtype=torch.int64), torch.full((BATCH,), PROMPT)
    inputs: dict[str, Axes] = {"input_ids": ("batch", "prompt"), "prompt_lengths": ("batch",)}
    traced = Traced(
        EncoderModule(model).eval(),
        example,
        ({0: auto, 1: auto}, {0: auto}),
        inputs,
        _read(model),
        type(model).__name__,
    )
    write_graph(traced, path, external_bytes=external_bytes, progress=progress)


def export_decoder(
    model: PreTrainedModel, vocabulary: NDArray[np.int64], path: Path, external_bytes: int, progress: Progress
) -> None:
    """Write the graph of a model's decoder; see `export_graph`."""
    inputs, outputs = _decoder_axes(model, len(vocabulary))
    traced = Traced(
        DecoderModule(model, vocabulary).eval(), *_decoder_example(model), inputs, outputs, type(model).__name__
    )
    write_graph(traced, path, external_bytes=external_bytes, progress=progress)


def _decoder_example(model: PreTrainedModel) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Inputs to trace with, and their open axes."""
    length, past, rows = 7, 5, 3
    config, auto = model.config, torch.export.Dim.AUTO
    layers, pair = 2 * config.num_decoder_layers, {0: auto, 1: auto}

    def keys(slots: int) -> list[torch.Tensor]:
        return [torch.zeros(BATCH, config.num_heads, slots, config.d_kv, dtype=model.dtype) for _ in range(layers)]

    example = (
        torch.zeros(BATCH, length, dtype=torch.int64),
        torch.arange(past, past + length).repeat(BATCH, 1),
        torch.zeros(BATCH, 1, length, past + length, dtype=model.dtype),
        torch.arange(rows).repeat(BATCH, 1),
        torch.arange(past + length).repeat(BATCH, 1),
        torch.full((BATCH,), PROMPT),
        keys(past),
        keys(PROMPT),
    )
    cache = [{0: auto, 2: auto}] * layers
    return example, (pair, pair, {0: auto, 2: auto, 3: auto}, pair, pair, {0: auto}, cache, cache)


def _decoder_axes(model: PreTrainedModel, columns: int) -> tuple[dict[str, Axes], dict[str, Axes]]:
    """The contract: every input and every output with its axes."""
    heads, width = int(model.config.num_heads), int(model.config.d_kv)
    inputs: dict[str, Axes] = {
        "input_ids": ("batch", "sequence"),
        "position_ids": ("batch", "sequence"),
        "attention_mask": ("batch", 1, "sequence", "past+sequence"),
        "logit_rows": ("batch", "rows"),
        "slot_positions": ("batch", "past+sequence"),
        "prompt_lengths": ("batch",),
    }
    outputs: dict[str, Axes] = {"logprobs": ("batch", "rows", columns)}
    for name in _names(model):
        inputs[f"past_key_values.{name}"] = ("batch", heads, "past", width)
        outputs[f"present.{name}"] = ("batch", heads, "past+sequence", width)
    return inputs | _read(model), outputs


def _read(model: PreTrainedModel) -> dict[str, Axes]:
    """What an encoder gives and a decoder takes."""
    axes: Axes = ("batch", int(model.config.num_heads), "prompt", int(model.config.d_kv))
    return {f"read_key_values.{name}": axes for name in _names(model)}


def _names(model: PreTrainedModel) -> list[str]:
    return [f"{layer}.{part}" for layer in range(model.config.num_decoder_layers) for part in ("key", "value")]
