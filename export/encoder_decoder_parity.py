"""The proof that an encoder-decoder's two graphs compute what its Hugging Face model computes.

As in `parity`: the decoder's graph is asked about token trees, behind prompts of unequal lengths that the encoder's
graph has read; the model gets each root-to-leaf path as a sequence of its own, with its prompt.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from ..catalog.errors import ExportError
from ..catalog.finite import are_logprobs
from ..engines.bundle.facts import ENCODER, ModelFacts
from ..engines.decoder_facts import context_of, model_facts
from .checkpoint import cast_parameters
from .findings import Case
from .parity import (
    SEED,
    Comparison,
    Difference,
    Forward,
    ParityReport,
    compare,
    graphs_to_run,
    largest,
    onnx_forward,
    refuse,
    size_of,
)
from .parity import Expected as ExpectedTrees
from .quiet import quiet
from .reference import Reference
from .scenes import BATCH, ONE, TREE, Scene, random_scene


@dataclass(frozen=True)
class Reading:
    """Prompts, trees that are decoded behind them, and what the plain model says of both."""

    prompts: NDArray[np.int64]  # [B, P], padded at their ends
    lengths: NDArray[np.int64]  # [B]
    scene: Scene
    truth: Reference
    read: list[NDArray[np.float32]]  # key, value of every layer of the decoder: [B, P, H, D]; undefined in padding


@dataclass(frozen=True)
class Expected:
    """What the graphs are held against."""

    facts: ModelFacts
    readings: dict[str, Reading]
    rng: np.random.Generator  # what is left to chance


def check_parity(
    graph: Path, model: PreTrainedModel, vocabulary: NDArray[np.int64], precision: str, *, seed: int = SEED
) -> ParityReport:
    """Compare a decoder's graph, and the encoder's beside it, with their model; see `parity.check_parity`."""
    return compare_graphs(graph, precision, expected_of(model, vocabulary, seed=seed))


def comparison(model: PreTrainedModel, vocabulary: NDArray[np.int64]) -> Comparison:
    """As `parity.comparison`."""
    return partial(compare_graphs, expected=expected_of(model, vocabulary))


def expected_of(model: PreTrainedModel, vocabulary: NDArray[np.int64], *, seed: int = SEED) -> Expected:
    """What a model says of some prompts and token trees; leaves it, and raises, as `parity.expected_of` does."""
    cast_parameters(model, torch.float32)
    with quiet():
        model.set_attn_implementation("eager")
    own: Any = model
    for block in (*own.encoder.block, *own.decoder.block):
        block.layer[-1].DenseReluDense.act = ACT2FN[model.config.dense_act_fn]  # as it was before it was exported
    rng = np.random.default_rng(seed)
    readings = {name: _reading(model, rng, batch, vocabulary) for name, batch in ((ONE, 1), (BATCH, 3))}
    if not all(are_logprobs(each.truth.logprobs[each.scene.real]) for each in readings.values()):
        raise ExportError(
            f"The {type(model).__name__} itself gives NaN or infinity as a log-probability, even in float32: its "
            "weights are damaged. Mend the checkpoint, or export an earlier one."
        )
    return Expected(model_facts(model), readings, rng)


def compare_graphs(graph: Path, precision: str, expected: Expected) -> ParityReport:
    """Compare a decoder's graph, and the encoder's beside it, with what their model said.

    Raises `ExportError` with the largest difference, its place and the threshold.
    """
    differences: dict[tuple[str, str], Difference] = {}
    cases: dict[str, list[Case]] = {}
    with tempfile.TemporaryDirectory(prefix=".parity.", dir=graph.parent) as scratch:
        folders = [Path(scratch) / part for part in ("decoder", "encoder")]
        for folder in folders:
            folder.mkdir()
        decoders = graphs_to_run(graph, precision, folders[0])
        encoders = graphs_to_run(graph.with_name(ENCODER), precision, folders[1])
        for run, path in decoders.items():
            compared = [
                found
                for name in expected.readings
                for found in _compared(onnx_forward(encoders[run]), onnx_forward(path), expected, name, run)
            ]
            worst, cases[run] = [found for found, _ in compared], [case for _, case in compared if case is not None]
            for kind in ("read", "logprobs", "present"):
                differences[run, kind] = max((found[kind] for found in worst if kind in found), key=size_of)
    refuse(differences, cases, expected.facts.architecture)
    return ParityReport(differences)


def _reading(model: PreTrainedModel, rng: np.random.Generator, batch: int, vocabulary: NDArray[np.int64]) -> Reading:
    rows, context = len(model.lm_head.weight), context_of(model.config)
    deepest = max(1, min(TREE, context - 6))
    scene = random_scene(rng, deepest - rng.permutation(batch) * (deepest // 4), vocabulary, rows, context)
    longest = min(TREE, context)
    lengths = longest - rng.permutation(batch) * (longest // 4)
    prompts = rng.integers(0, rows, (batch, longest))
    prompts[np.arange(longest) >= lengths[:, None]] = 0
    return Reading(prompts, lengths, scene, *_reference(model, prompts, lengths, scene, vocabulary))


def _reference(
    model: PreTrainedModel, prompts: NDArray[np.int64], lengths: NDArray[np.int64], scene: Scene,
    vocabulary: NDArray[np.int64],
) -> tuple[Reference, list[NDArray[np.float32]]]:  # fmt: skip
    """Every root-to-leaf path through the plain model; those of a tree in one call, its prompt without padding."""
    (batch, width), config, columns = scene.tokens.shape, model.config, torch.from_numpy(vocabulary)
    layers, head = 2 * config.num_decoder_layers, (config.num_heads, config.d_kv)
    logprobs = np.full((batch, width, len(vocabulary)), np.nan, np.float32)
    presents = [np.full((batch, width, *head), np.nan, np.float32) for _ in range(layers)]
    read = [np.full((*prompts.shape, *head), np.nan, np.float32) for _ in range(layers)]
    for b in range(batch):
        paths = [scene.path(b, leaf) for leaf in scene.leaves(b)]
        tokens = np.zeros((len(paths), max(map(len, paths))), np.int64)
        for row, path in zip(tokens, paths, strict=True):
            row[: len(path)] = scene.tokens[b, path]
        prompt = torch.from_numpy(prompts[b, : lengths[b]])[None].expand(len(paths), -1)
        with torch.inference_mode():
            output = model(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), decoder_input_ids=torch.from_numpy(tokens),
                use_cache=True,
            )  # fmt: skip
        own, across = (
            [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
            for cache in (output.past_key_values.self_attention_cache, output.past_key_values.cross_attention_cache)
        )
        for target, tensor in zip(read, across, strict=True):
            target[b, : lengths[b]] = tensor[0].transpose(0, 1).numpy()
        for i, path in enumerate(paths):
            logprobs[b, path] = output.logits[i, : len(path)].log_softmax(-1)[:, columns].numpy()
            for present, tensor in zip(presents, own, strict=True):
                present[b, path] = tensor[i, :, : len(path)].transpose(0, 1).numpy()
    return Reference(logprobs, presents), read


def _compared(
    encode: Forward, decode: Forward, expected: Expected, name: str, run: str
) -> list[tuple[dict[str, Difference], Case | None]]:
    """Largest differences: of what the encoder has read, and of a tree decoded in one call and in two."""
    reading = expected.readings[name]
    read, width = encode([reading.prompts, reading.lengths]), reading.scene.tokens.shape[1]
    there = np.arange(reading.prompts.shape[1]) < reading.lengths[:, None]
    found = [
        largest(got.swapaxes(1, 2)[there], truth[there], f"what layer {number // 2} of the decoder reads of prompts")
        for number, (got, truth) in enumerate(zip(read, reading.read, strict=True))
    ]
    trees = ExpectedTrees(expected.facts, {name: reading.scene}, {name: reading.truth}, expected.rng)
    asked = partial(_decoded, decode, reading.lengths, read)
    return [
        ({"read": max(found, key=size_of)}, None),
        *(compare(asked, trees, name, cuts, run) for cuts in ((), (width * 2 // 3,))),
    ]


def _decoded(
    decode: Forward, lengths: NDArray[np.int64], read: Sequence[Any], inputs: Sequence[NDArray[Any]]
) -> list[NDArray[Any]]:
    """A call as `parity.compare` makes it, with what a decoder takes besides."""
    tokens, positions, mask, rows, *past, slots = inputs
    return decode([tokens, positions, mask, rows, slots, lengths, *past, *read])
