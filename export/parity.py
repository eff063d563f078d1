"""The proof that a graph computes what the Hugging Face model computes.

Token trees are packed behind prompts of unequal lengths, with padding anywhere, and go through the
graph with a tree mask, in one call and in several on what those before have cached; the model reads each
root-to-leaf path the ordinary way, as a sequence of its own and with Transformers' own attention, so that an
error in our wrapper shows as well. One prompt is longer than any window, one lies at the end of the context. The
model may be gone when the graph runs: memory then holds the weights once.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..catalog.errors import EngineError, ExportError
from ..catalog.finite import are_logprobs
from ..engines.attention_mask import MASK_TYPES
from ..engines.bundle.facts import ModelFacts
from ..engines.decoder_facts import longest_window, model_facts
from ..engines.registry import whole_library
from ..graphs.lift import lift_graph
from .checkpoint import cast_parameters
from .findings import Case, finding
from .quiet import quiet
from .reference import Reference, reference
from .scenes import LONG_ONE, Scene, scenes_for

Forward = Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]]  # the graph's inputs, in their order

Comparison = Callable[[Path, str], "ParityReport"]  # of a graph of a precision

# The largest difference allowed, relative to max(1, largest value of the reference). fp32 holds for
# the exported graph, or for its lifted copy where the graph is in half precision. fp16 holds for the
# exported graph itself against the float32 model with the same rounded weights; measured: 2e-3 on
# trained models, 1e-2 on random ones with logits far apart.
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-2}
SEED = 20410
MOST_ROWS = 48  # of logits that a call of the graph computes


@dataclass(frozen=True)
class Expected:
    """What a graph is held against."""

    facts: ModelFacts
    scenes: dict[str, Scene]
    references: dict[str, Reference]  # of the scenes
    rng: np.random.Generator  # what is left to chance

    def empty_past(self, scene: Scene, precision: str) -> list[NDArray[Any]]:
        """Keys and values [B, G, 0, D] of an empty cache."""
        shape = (len(scene.tokens), self.facts.kv_heads, 0, self.facts.head_dim)
        return [np.zeros(shape, MASK_TYPES[precision].dtype)] * len(self.facts.cache_names)


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

    Leaves `model` in float32 (same rounded weights) and with its own attention. Raises `ExportError` where the model
    itself computes what is no number.
    """
    cast_parameters(model, torch.float32)
    with quiet():
        model.set_attn_implementation("eager")
        model.set_experts_implementation("eager")
    rng, facts = np.random.default_rng(seed), model_facts(model)
    scenes = scenes_for(rng, vocabulary, facts.vocabulary, facts.context, longest_window(model.config))
    references = {name: reference(model, facts, scene, vocabulary) for name, scene in scenes.items()}
    for name, scene in scenes.items():
        known = scene.real & ~np.isnan(references[name].presents[0][..., 0, 0])
        if name != LONG_ONE and not are_logprobs(references[name].logprobs[known]):
            raise ExportError(
                f"The {facts.architecture} itself gives NaN or infinity as a log-probability, even in float32: its "
                "weights are damaged. Mend the checkpoint, or export an earlier one."
            )
    return Expected(facts, scenes, references, rng)


def compare_graph(graph: Path, precision: str, expected: Expected) -> ParityReport:
    """Compare an exported graph with what its model said.

    Raises `ExportError` with the largest difference, its place and the threshold, and what it looks like.
    """
    differences: dict[tuple[str, str], Difference] = {}
    cases: dict[str, list[Case]] = {}
    with tempfile.TemporaryDirectory(prefix=".parity.", dir=graph.parent) as scratch:
        for run, path in graphs_to_run(graph, precision, Path(scratch)).items():
            forward = onnx_forward(path)
            compared = [
                compare(forward, expected, name, cuts, run)
                for name, scene in expected.scenes.items()
                for cuts in _cuts(name, scene.tokens.shape[1])
            ]
            del forward  # one set of weights at a time
            cases[run] = [case for _, case in compared]
            for kind in ("logprobs", "present"):
                differences[run, kind] = max((found[kind] for found, _ in compared), key=size_of)
    refuse(differences, cases, expected.facts.architecture)
    return ParityReport(differences)


def _cuts(name: str, width: int) -> list[tuple[int, ...]]:
    """Where a scene's slots are cut into calls: not at all, and once; a long one also behind a first small part."""
    return [(), (width // 3, width - 8)] if name == LONG_ONE else [(), (width * 2 // 3,)]


def refuse(differences: dict[tuple[str, str], Difference], cases: dict[str, list[Case]], architecture: str) -> None:
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
                f"The exported graph differs from the {architecture} it was made from. {finding(cases[run])}. Most of "
                f"all {kind} by {difference.absolute:.3g} ({difference.relative:.3g} of the scale; at most "
                f"{TOLERANCE[run]:g} is allowed in {run}), in {difference.where}. The export is given up. Either the "
                "architecture does what such a graph cannot, or it is a fault of the exporter or of these versions of "
                "torch, transformers and onnxruntime: please report it with them."
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


def compare(
    forward: Forward, expected: Expected, name: str, cuts: Sequence[int], run: str
) -> tuple[dict[str, Difference], Case]:
    """Largest differences of a scene, its slots cut into calls, and which of them are too large."""
    scene, truth, mask_type, rng = expected.scenes[name], expected.references[name], MASK_TYPES[run], expected.rng
    batch, width = scene.tokens.shape
    requests, bounds = np.arange(batch)[:, None], [0, *cuts, width]
    past = expected.empty_past(scene, run)
    for start, stop in pairwise(bounds):
        count = min(stop - start, MOST_ROWS)
        rows = rng.permuted(np.tile(np.arange(stop - count, stop), (batch, 1)), axis=1)[:, : -(-count * 3 // 4)]
        visible = scene.sees[:, None, start:stop, :stop]
        mask = np.where(visible, 0, mask_type.hidden).astype(mask_type.dtype)
        where = [scene.positions[:, :stop]] * expected.facts.slot_positions
        logprobs, *past = forward(
            [scene.tokens[:, start:stop], scene.positions[:, start:stop], mask, rows - start, *past, *where]
        )
    case = f"{name}, batch {batch}, {width - start} tokens on {start} cached"
    known = scene.real[requests, rows] & ~np.isnan(truth.logprobs[requests, rows, 0])
    wrong = np.zeros((batch, width), bool)
    own, right = logprobs[known], truth.logprobs[requests, rows][known]
    found = {"logprobs": largest(own, right, f"logprobs ({case})")}
    if own.shape == right.shape:
        wrong[(requests + 0 * rows)[known], rows[known]] |= _beyond(own, right, TOLERANCE[run])
    if not np.isfinite(logprobs).all():
        found["logprobs"] = Difference(np.inf, np.inf, f"logprobs ({case}) are not finite")
    found["present"] = Difference(0.0, 0.0, "")
    for tensor, present, cached in zip(past, truth.presents, expected.facts.cache_names, strict=True):
        keys = tensor.swapaxes(1, 2)
        most = largest(keys[scene.real], present[scene.real], f"present.{cached} ({case})")
        found["present"] = max(found["present"], most, key=size_of)
        if keys.shape == present.shape:
            wrong[scene.real] |= _beyond(keys[scene.real], present[scene.real], TOLERANCE[run])
    return found, Case(name, scene, len(bounds) - 1, wrong)


def _beyond(got: NDArray[Any], expected: NDArray[np.float32], tolerance: float) -> NDArray[np.bool_]:
    """[N]: whether a slot's numbers [N, ...] differ by more than the tolerance; NaN does."""
    axes = tuple(range(1, expected.ndim))
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    within: NDArray[np.bool_] = np.abs(got.astype(np.float32) - expected).max(axis=axes) <= tolerance * scale
    return ~within


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
