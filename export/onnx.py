"""One model to one ONNX graph that fulfils the contract of docs/design.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..catalog.errors import ExportError, is_fault, said
from ..engines.bundle.facts import ModelFacts
from ..engines.decoder_facts import model_facts
from ..engines.torch import GraphModule
from ..graphs import EXTERNAL_BYTES as EXTERNAL_BYTES
from ..graphs.files import Progress, save_graph
from ..graphs.plain_products import plain_products
from ..graphs.wanted_rows import pick_rows_early
from ..graphs.write import forget_shapes
from .quiet import quiet

OPSET = 23  # 24 would break RMSNormalization and RotaryEmbedding up into their parts

Axes = tuple[str | int, ...]


def export_graph(
    model: PreTrainedModel,
    vocabulary: NDArray[np.int64],
    path: Path,
    *,
    external_bytes: int = EXTERNAL_BYTES,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write the graph of `model` to `path`, and its weights to `path` + ".data" if they exceed `external_bytes`.

    vocabulary [C]: the token ids that become the columns of `logprobs`; progress: as of `save_graph`. The model's
    attention is replaced (`engines.attention.masked_attention`). Raises `ExportError` when the trace fixed an axis
    that the contract leaves open.
    """
    facts = model_facts(model)
    module = GraphModule(model, vocabulary).eval()
    traced = Traced(
        module, _example(facts, model.dtype), _dynamic(facts), *_axes(facts, len(vocabulary)), facts.architecture
    )
    write_graph(traced, path, external_bytes=external_bytes, progress=progress)


@dataclass(frozen=True)
class Traced:
    """A module, what it is traced with, and what its graph takes and gives."""

    module: torch.nn.Module
    example: tuple[object, ...]  # every open axis has a size of its own
    dynamic: tuple[object, ...]  # the open axes of these
    inputs: dict[str, Axes]
    outputs: dict[str, Axes]
    architecture: str  # how errors name the model


def write_graph(traced: Traced, path: Path, *, external_bytes: int, progress: Progress) -> None:
    """Trace a module and write its graph; see `export_graph`."""
    with quiet(), torch.no_grad():  # attention on weights that learn is another kernel, and traced as another layout
        program = _traced(traced)
        graph = program.model
        weights = list(graph.graph.initializers.values())
        program.optimize()
        _name_axes(graph.graph.inputs, traced.inputs)
        _name_axes(graph.graph.outputs, traced.outputs)
        _store_once(graph)
        passes.CommonSubexpressionEliminationPass()(graph)
        plain_products(graph)
        pick_rows_early(graph)
        _tidy(graph)
        save_graph(graph, path, external_bytes=external_bytes, progress=progress)
        for value in (*weights, *graph.graph.initializers.values()):
            value.const_value = None  # onnxscript's rules keep hold of the last graph they saw, weights and all


def _traced(traced: Traced) -> torch.onnx.ONNXProgram:
    """The module as PyTorch's exporter sees it. Raises `ExportError` where what it computes hangs on its inputs."""
    try:
        program = torch.onnx.export(
            traced.module,
            traced.example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(traced.inputs),
            output_names=list(traced.outputs),
            dynamic_shapes=traced.dynamic,
            optimize=False,
            verbose=False,
        )
    except BaseException as error:
        if not is_fault(error):
            raise
        raise ExportError(
            f"The {traced.architecture} cannot be written as a graph: {said(error)}. Its code does what depends on "
            "more than the shapes of its inputs, or what ONNX has no operator for."
        ) from error
    if program is None:
        raise ExportError("torch.onnx.export returned no graph. Install torch 2.11 or later.")
    return program


def _example(facts: ModelFacts, dtype: torch.dtype) -> tuple[object, ...]:
    """Inputs to trace with; every open axis has a size of its own, so that none is taken for another."""
    batch, length, past, rows = 2, 7, 5, 3
    shape = (batch, facts.kv_heads, past, facts.head_dim)
    positions = torch.arange(past, past + length).repeat(batch, 1)
    return (
        torch.zeros(batch, length, dtype=torch.int64),
        positions,
        torch.zeros(batch, 1, length, past + length, dtype=dtype),
        torch.arange(rows).repeat(batch, 1),
        [torch.zeros(shape, dtype=dtype) for _ in facts.cache_names],
        *[torch.arange(past + length).repeat(batch, 1)] * facts.slot_positions,
    )


def _dynamic(facts: ModelFacts) -> tuple[object, ...]:
    auto = torch.export.Dim.AUTO  # the only kind that accepts past + sequence as an axis
    pair, cache = {0: auto, 1: auto}, [{0: auto, 2: auto} for _ in facts.cache_names]
    return pair, pair, {0: auto, 2: auto, 3: auto}, pair, cache, *[pair] * facts.slot_positions


def _axes(facts: ModelFacts, columns: int) -> tuple[dict[str, Axes], dict[str, Axes]]:
    """The contract: every input and every output with its axes."""
    inputs: dict[str, Axes] = {
        "input_ids": ("batch", "sequence"),
        "position_ids": ("batch", "sequence"),
        "attention_mask": ("batch", 1, "sequence", "past+sequence"),
        "logit_rows": ("batch", "rows"),
    }
    outputs: dict[str, Axes] = {"logprobs": ("batch", "rows", columns)}
    for name in facts.cache_names:
        inputs[f"past_key_values.{name}"] = ("batch", facts.kv_heads, "past", facts.head_dim)
        outputs[f"present.{name}"] = ("batch", facts.kv_heads, "past+sequence", facts.head_dim)
    if facts.slot_positions:
        inputs["slot_positions"] = ("batch", "past+sequence")
    return inputs, outputs


def _name_axes(values: Sequence[ir.Value], wanted: dict[str, Axes]) -> None:
    """Give the axes their names; raises `ExportError` where the trace and the contract disagree."""
    if [value.name for value in values] != list(wanted):
        raise ExportError(f"The graph has {[value.name for value in values]}; expected {list(wanted)}.")
    for value, axes in zip(values, wanted.values(), strict=True):
        traced = list(value.shape) if value.shape is not None else []
        fits = len(traced) == len(axes) and all(
            dim == axis if isinstance(axis, int) else not isinstance(dim, int)
            for dim, axis in zip(traced, axes, strict=True)
        )
        if not fits:
            raise ExportError(f"The graph's {value.name} has the shape {traced}; the contract says {axes}.")
        value.shape = ir.Shape(axes)


def _store_once(model: ir.Model) -> None:
    """Let a tied head read the embedding through a Transpose: the exporter stores small ones a second time."""
    weights = model.graph.initializers
    embedding = next(node.inputs[0] for node in model.graph if node.op_type == "Gather" and _is_matrix(node.inputs[0]))
    assert embedding is not None
    for name, value in list(weights.items()):
        if _is_turned(value, embedding):
            turned = ir.node("Transpose", [embedding], {"perm": [1, 0]}, name="tied_head")
            turned.outputs[0].type = embedding.type
            next(iter(value.uses())).node.prepend(turned)
            value.replace_all_uses_with(turned.outputs[0])
            del weights[name]


def _is_matrix(value: ir.Value | None) -> bool:
    """Whether a value is a matrix that the graph stores."""
    return value is not None and value.const_value is not None and len(value.const_value.shape) == 2


def _is_turned(value: ir.Value, other: ir.Value) -> bool:
    """Whether `value` stores the transpose of `other`."""
    one, two = value.const_value, other.const_value
    return (
        one is not None
        and two is not None
        and one.dtype == two.dtype
        and one.shape.numpy() == two.shape.numpy()[::-1]
        and np.array_equal(one.numpy(), two.numpy().T)
    )


def _tidy(model: ir.Model) -> None:
    """Drop traces of this machine's files and the shapes in the exporter's own symbols."""
    passes.ClearMetadataAndDocStringPass()(model)
    model.graph.name = "specbeam"
    forget_shapes(model)
