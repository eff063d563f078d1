"""The proof that a graph computes what the Hugging Face model computes.

Token trees are packed behind prompts of unequal lengths, with padding anywhere, and go through the
graph with a tree mask; the model reads each root-to-leaf path the ordinary way, as a sequence of its
own and with Transformers' own attention, so that an error in our wrapper shows as well. The model may
be gone when the graph runs: memory then holds the weights once.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..catalog.errors import EngineError, ExportError
from ..catalog.finite import are_logprobs
from ..engines.attention_mask import MASK_TYPES, MaskType
from ..engines.decoder_facts import head_dim, matrix
from ..engines.registry import whole_library
from ..engines.torch import torch_threads
from ..graphs.lift import lift_graph
from .checkpoint import cast_parameters
from .quiet import quiet
from .scenes import Scene, random_scene

Forward = Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]]  # the graph's inputs, in their order

Comparison = Callable[[Path, str], "ParityReport"]  # of a graph of a precision

# The largest difference allowed, relative to max(1, largest value of the reference). fp32 holds for
# the exported graph, or for its lifted copy where the graph is in half precision. fp16 holds for the
# exported graph itself against the float32 model with the same rounded weights; measured: 2e-3 on
# trained models, 1e-2 on random ones with logits far apart.
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-2}
SEED = 20410
SMALL = 50_000_000  # parameters below which a few tokens are too little work to share between threads


@dataclass(frozen=True)
class Reference:
    """What the plain model says; undefined in padding."""

    logprobs: NDArray[np.float32]  # [B, T, C]
    presents: list[NDArray[np.float32]]  # key, value of every layer: [B, T, G, D]


@dataclass(frozen=True)
class Expected:
    """What a graph is held against."""

    architecture: str
    layers: int
    kv_heads: int
    head_dim: int
    scenes: list[Scene]
    references: list[Reference]  # of the scenes
    rng: np.random.Generator  # what is left to chance

    def empty_past(self, scene: Scene, precision: str) -> list[NDArray[Any]]:
        """Keys and values [B, G, 0, D] of an empty cache."""
        shape = (len(scene.tokens), self.kv_heads, 0, self.head_dim)
        return [np.zeros(shape, MASK_TYPES[precision].dtype)] * (2 * self.layers)


@dataclass(frozen=True)
class Difference:
    """The largest deviation found in one kind of output."""

    absolute: float
    relative: float  # to max(1, largest value of the reference)
    where: str


@dataclass(frozen=True)
class ParityReport:
    """Largest differences by graph run ("fp32", "fp16") and kind of output ("logprobs", "present")."""

    differences: dict[tuple[str, str], Difference]

    def summary(self) -> str:
        """One line for progress messages."""
        parts = [f"{run} {kind} {found.absolute:.1e}" for (run, kind), found in self.differences.items()]
        return "largest differences: " + ", ".join(parts)


def check_parity(
    graph: Path, model: PreTrainedModel, vocabulary: NDArray[np.int64], precision: str, *, seed: int = SEED
) -> ParityReport:
    """Compare an exported graph with its model: batch 1 and 3, without and with past, under a tree mask.

    Leaves `model` as `expected_of` does, and raises as `expected_of` and `compare_graph` do.
    """
    return compare_graph(graph, precision, expected_of(model, vocabulary, seed=seed))


def comparison(model: PreTrainedModel, vocabulary: NDArray[np.int64]) -> Comparison:
    """Compares graphs with what a model says now; leaves it, and raises, as `expected_of` does."""
    return partial(compare_graph, expected=expected_of(model, vocabulary))


def expected_of(model: PreTrainedModel, vocabulary: NDArray[np.int64], *, seed: int = SEED) -> Expected:
    """What a model says of some token trees.

    Leaves `model` in float32 (same rounded weights) and with eager attention. Raises `ExportError` where the model
    itself computes what is no number.
    """
    cast_parameters(model, torch.float32)
    with quiet():
        model.set_attn_implementation("eager")
    rng, config = np.random.default_rng(seed), model.config
    rows, context = len(matrix(model.lm_head)), int(config.max_position_embeddings)
    scenes = [random_scene(rng, batch, vocabulary, rows, context) for batch in (1, 3)]
    references = [reference(model, scene, vocabulary) for scene in scenes]
    if not all(are_logprobs(truth.logprobs[scene.real]) for scene, truth in zip(scenes, references, strict=True)):
        raise ExportError(
            f"The {type(model).__name__} itself gives NaN or infinity as a log-probability, even in float32: its "
            "weights are damaged. Mend the checkpoint, or export an earlier one."
        )
    return Expected(
        type(model).__name__, int(config.num_hidden_layers), int(config.num_key_value_heads), head_dim(config),
        scenes, references, rng,
    )  # fmt: skip


def compare_graph(graph: Path, precision: str, expected: Expected) -> ParityReport:
    """Compare an exported graph with what its model said.

    Raises `ExportError` with the largest difference, its place and the threshold.
    """
    differences: dict[tuple[str, str], Difference] = {}
    with tempfile.TemporaryDirectory(prefix=".parity.", dir=graph.parent) as scratch:
        for run, path in graphs_to_run(graph, precision, Path(scratch)).items():
            forward = onnx_forward(path)
            worst = [
                compare(forward, scene, truth, cut, MASK_TYPES[run], expected.empty_past(scene, run), expected.rng)
                for scene, truth in zip(expected.scenes, expected.references, strict=True)
                for cut in (0, scene.tokens.shape[1] * 2 // 3)
            ]
            del forward  # one set of weights at a time
            for kind in ("logprobs", "present"):
                differences[run, kind] = max((found[kind] for found in worst), key=size_of)
    refuse(differences, expected.architecture)
    return ParityReport(differences)


def refuse(differences: dict[tuple[str, str], Difference], architecture: str) -> None:
    """Raise `ExportError` where a difference is larger than is allowed."""
    for (run, kind), difference in sorted(differences.items(), key=lambda found: found[0][0] != "fp32"):
        if not difference.relative <= TOLERANCE[run]:  # also NaN
            if run == "fp16" and not np.isfinite(difference.relative):  # and fp32 has passed
                raise ExportError(
                    f"The {architecture}'s activations overflow in fp16, whose largest finite number is "
                    f"65,504: {difference.where}. In float32 its graph is right. Export it with --precision bf16 or "
                    "fp32."
                )
            raise ExportError(
                f"The exported graph differs from the {architecture} it was made from: {kind} by "
                f"{difference.absolute:.3g} ({difference.relative:.3g} of the scale; at most {TOLERANCE[run]:g} is "
                f"allowed in {run}), in {difference.where}. The export is given up. This is a fault of the exporter "
                "or of these versions of torch, transformers and onnxruntime: please report it with them."
            )


def graphs_to_run(graph: Path, precision: str, scratch: Path) -> dict[str, Path]:
    """The graphs to run: the exported one where ONNX Runtime's CPU provider can, and a lifted copy of a half one."""
    runs = {precision: graph} if precision in TOLERANCE else {}
    if precision != "fp32":
        runs["fp32"] = scratch / "model.onnx"
        lift_graph(graph, runs["fp32"])
    return runs


def size_of(difference: Difference) -> float:
    """By which differences are ordered."""
    return np.inf if np.isnan(difference.relative) else difference.relative


def reference(model: PreTrainedModel, scene: Scene, vocabulary: NDArray[np.int64]) -> Reference:
    """Every root-to-leaf path through the plain model, each a sequence of its own; those of a tree in one call.

    Shorter ones are filled up behind their ends, which no token in front of them sees.
    """
    batch, width = scene.tokens.shape
    config = model.config
    shape = (batch, width, int(config.num_key_value_heads), head_dim(config))
    logprobs = np.full((batch, width, len(vocabulary)), np.nan, np.float32)
    presents = [np.full(shape, np.nan, np.float32) for _ in range(2 * config.num_hidden_layers)]
    columns = torch.from_numpy(vocabulary)
    threads = 1 if model.num_parameters() < SMALL else 0
    for b in range(batch):
        paths = [scene.path(b, leaf) for leaf in scene.leaves(b)]
        tokens = np.zeros((len(paths), max(map(len, paths))), np.int64)
        for row, path in zip(tokens, paths, strict=True):
            row[: len(path)] = scene.tokens[b, path]
        with torch.inference_mode(), torch_threads(threads):
            output = model(input_ids=torch.from_numpy(tokens), use_cache=True)
            tensors = [t for layer in output.past_key_values.layers for t in (layer.keys, layer.values)]
            for i, path in enumerate(paths):
                row = output.logits[i, : len(path)].float().log_softmax(-1)[:, columns]
                logprobs[b, path] = row.numpy()
                for present, tensor in zip(presents, tensors, strict=True):
                    present[b, path] = tensor[i, :, : len(path)].transpose(0, 1).float().numpy()
    return Reference(logprobs, presents)


def compare(
    forward: Forward,
    scene: Scene,
    expected: Reference,
    cut: int,
    mask_type: MaskType,
    past: list[NDArray[Any]],
    rng: np.random.Generator,
) -> dict[str, Difference]:
    """Largest differences of a scene run in one call (cut 0), or in two: the first `cut` slots, then the rest."""
    batch, width = scene.tokens.shape
    case = f"batch {batch}, {width - cut} tokens on {cut} cached"
    for start, stop in [(0, width)] if cut == 0 else [(0, cut), (cut, width)]:
        rows = rng.permuted(np.tile(np.arange(start, stop), (batch, 1)), axis=1)[:, : (stop - start) * 3 // 4]
        visible = scene.sees[:, None, start:stop, :stop]
        mask = np.where(visible, 0, mask_type.hidden).astype(mask_type.dtype)
        logprobs, *past = forward([scene.tokens[:, start:stop], scene.depths[:, start:stop], mask, rows - start, *past])
    requests = np.arange(batch)[:, None]
    real = scene.real[requests, rows]
    found = {"logprobs": largest(logprobs[real], expected.logprobs[requests, rows][real], f"logprobs ({case})")}
    if not np.isfinite(logprobs).all():
        found["logprobs"] = Difference(np.inf, np.inf, f"logprobs ({case}) are not finite")
    names = [f"present.{layer}.{part} ({case})" for layer in range(len(past) // 2) for part in ("key", "value")]
    found["present"] = max(
        (
            largest(got.swapaxes(1, 2)[scene.real], present[scene.real], name)
            for got, present, name in zip(past, expected.presents, names, strict=True)
        ),
        key=size_of,
    )
    return found


def largest(got: NDArray[Any], expected: NDArray[np.float32], name: str) -> Difference:
    """The largest difference of an output to what is expected of it."""
    if got.shape != expected.shape:
        return Difference(np.inf, np.inf, f"{name}: shape {got.shape} instead of {expected.shape}")
    difference = np.abs(got.astype(np.float32) - expected)
    place = np.unravel_index(int(np.argmax(np.nan_to_num(difference, nan=np.inf))), difference.shape)
    absolute = float(difference[place])
    where = f"{name} at {[int(i) for i in place]}: {float(got[place]):.6g} instead of {float(expected[place]):.6g}"
    return Difference(absolute, absolute / max(1.0, float(np.abs(expected).max())), where)


def onnx_forward(path: Path) -> Forward:
    """A graph run by ONNX Runtime on the CPU, without the engine that the runtime uses."""
    try:
        with whole_library("onnxruntime"):
            import onnxruntime  # type: ignore[import-untyped]
    except EngineError as error:
        raise ExportError(f"The parity check runs the graph with ONNX Runtime. {error}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # PyTorch wants the cores next
    options.add_session_config_entry("session.disable_prepacking", "1")  # weights stay in their file, mapped
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ExportError(f"ONNX Runtime cannot load the exported graph: {error}") from error
    names = [value.name for value in session.get_inputs()]

    def forward(tensors: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = session.run(None, dict(zip(names, tensors, strict=True)))
        return outputs

    return forward
