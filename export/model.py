"""One checkpoint's part of a bundle: its graph, compared with the model, and a copy of the checkpoint."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engines.bundle.facts import ModelFacts
from ..engines.decoder_facts import model_facts
from .checkpoint import Checkpoint
from .encoder_decoder import export_graphs
from .encoder_decoder_parity import comparison as comparison_of_graphs
from .onnx import EXTERNAL_BYTES, export_graph
from .parity import comparison
from .quiet import quiet

GIGABYTE = 10**9
Progress = Callable[[str], None]


@dataclass(frozen=True)
class GraphSettings:
    """How the models of a bundle are written."""

    precision: str = "fp32"
    checkpoints: bool = True  # keep copies for the torch engine
    external_bytes: int = EXTERNAL_BYTES  # weights beyond it lie beside their graph
    progress: Progress = lambda stage: None


def export_model(
    role: str,
    source: Checkpoint,
    vocabulary: NDArray[np.int64] | None,
    folder: Path,
    settings: GraphSettings,
    *,
    trained: Sequence[str] = (),
) -> ModelFacts:
    """Write one model's graph, and its checkpoint, to `folder`; compare the graph with the model.

    vocabulary [C]: the columns of its log-probabilities; None: all rows of the head. trained: tokens that must
    have trained rows.
    """
    progress = settings.progress
    folder.mkdir()
    progress(f"loading the {role}")
    model = source.load(settings.precision, trained)
    facts = model_facts(model)
    columns = np.arange(facts.vocabulary) if vocabulary is None else vocabulary
    if settings.checkpoints:
        progress(f"keeping a copy of the {role}'s checkpoint")
        with quiet():
            model.save_pretrained(folder / "checkpoint")
            source.tokenizer.save_pretrained(folder / "checkpoint")
    progress(f"exporting the {role}'s graph ({facts.parameters:,} parameters)")
    graph, told = folder / "model.onnx", Written(progress, role)
    write = export_graph if facts.encoder is None else export_graphs
    write(model, columns, graph, external_bytes=settings.external_bytes, progress=told)
    gc.collect()  # all that the trace left
    progress(f"asking the {role} itself")
    compare = comparison(model, columns) if facts.encoder is None else comparison_of_graphs(model, columns)
    del model  # before the graph is opened: memory need not hold the weights twice
    gc.collect()
    progress(f"comparing the {role}'s graph with its model")
    report = compare(graph, settings.precision)
    progress(f"the {role}'s graph agrees with its model ({report.summary()})")
    return facts


class Written:
    """Tells of every gigabyte of a graph's weights that is about to be written."""

    def __init__(self, progress: Progress, role: str) -> None:
        self._progress, self._role, self._next = progress, role, 0

    def __call__(self, done: int, total: int) -> None:
        if done >= self._next:
            self._progress(f"writing the {self._role}'s weights: {done / GIGABYTE:.0f} of {total / GIGABYTE:.1f} GB")
            self._next = done + GIGABYTE
