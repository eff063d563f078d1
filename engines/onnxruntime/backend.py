"""ONNX Runtime as a backend: its graph optimisations run once, when the engine is built."""

import re
from pathlib import Path
from typing import ClassVar

import onnxruntime as ort  # type: ignore[import-untyped]

from ..backend import Backend, GraphToBuild, Progress
from ..base import Engine
from ..bundle.facts import CONSTRAINED, ENCODER, EnginePrecision, Precision, Role, RoleFacts, TensorRTFacts
from ..bundle.model import ModelBundle
from ..installed import backend_version
from ..prepare import prepare_graph
from .cpu import check_provider, load_ort_engine, open_session, session_options
from .device import GATHER

GRAPH = "model.onnx"
SHARED_BYTES = 8 << 20  # weights beyond this lie beside the graph, where processes and graphs share them
PACKED, VECTOR = (
    re.compile(rb"(?:\+\d+|;\d+)\|(\d+);\d+;"),
    64,
)  # where a packed weight is; bytes that one instruction reads
MOST_COLUMNS = 0.9  # of the vocabulary's rows: what a head of its own must leave out at least


class OrtBackend(Backend):
    """ONNX Runtime's CPU provider, or its CUDA provider: there caches and masks stay on the device."""

    name = "onnxruntime"
    runs: ClassVar[dict[str, tuple[EnginePrecision, ...]]] = {
        "cpu": ("fp32", "fp16", "int8"), "cuda": ("fp32", "fp16", "bf16"),
    }  # fmt: skip

    @property
    def precisions(self) -> tuple[EnginePrecision, ...]:
        return self.runs[self.device]

    def ready(self) -> None:
        check_provider(self.device)

    def versions(self) -> dict[str, str]:
        return {self.name: backend_version(self.name)}

    def cache(self, precision: EnginePrecision, exported: Precision) -> Precision:
        return exported if precision == "int8" or precision == "int8-weights" else precision

    def build(self, graph: GraphToBuild, progress: Progress) -> TensorRTFacts | None:
        exported = graph.bundle.manifest.precision
        slots = graph.bundle.manifest.tree_path if self.device == "cuda" else None
        prepared = prepare_graph(
            graph.source, graph.scratch / graph.role / GRAPH, exported=exported, wanted=graph.cache, mask_slots=slots
        )
        if self.device == "cuda":
            from ...graphs.gather import write_gather

            write_gather(graph.folder / GATHER, graph.bundle.facts(graph.role).layers, graph.cache)
        progress(f"optimising {graph.role}", 0, 1)
        optimise(prepared, graph.folder / GRAPH, self.device, graph.threads)
        if graph.bundle.facts(graph.role).encoder is not None:
            source, scratch = graph.source.with_name(ENCODER), graph.scratch / graph.role / ENCODER
            encoder = prepare_graph(source, scratch, exported=exported, wanted=graph.cache)
            optimise(encoder, graph.folder / ENCODER, self.device, graph.threads)
        narrow_head(graph)
        return None

    def load(
        self, bundle: ModelBundle, role: Role, folder: Path, facts: RoleFacts, threads: int, rebuild: str,
        *, catalog_head: bool = False, thrifty: bool = False,
    ) -> Engine:  # fmt: skip
        return load_ort_engine(
            folder / (CONSTRAINED if catalog_head else GRAPH), bundle.facts(role), device=self.device,
            precision=facts.cache, threads=threads, columns=bundle.manifest.columns, thrifty=thrifty,
        )  # fmt: skip


def narrow_head(graph: GraphToBuild) -> None:
    """Write `CONSTRAINED` beside an optimised graph, where that pays and can be done.

    Without onnx, which float32 on the CPU needs for nothing else, the whole head serves `constrained` scoring as well.
    """
    rows = graph.bundle.facts(graph.role).vocabulary
    if graph.bundle.manifest.columns > MOST_COLUMNS * rows:
        return
    try:
        from ...graphs.catalog_head import write_catalog_head
    except ModuleNotFoundError:
        return
    write_catalog_head(graph.folder / GRAPH, graph.folder / CONSTRAINED, rows=rows)


def optimise(source: Path, graph: Path, device: str, threads: int, *, folded: bool = False) -> None:
    """Write ONNX Runtime's optimised form of `source` to `graph` (its documentation: "Graph Optimizations").

    folded: weights that are stored as integers are turned into floating point now, once and for all; otherwise kernels
    of its own read them, which round the activations to 8 bits as well.

    On the CPU, large weights are written a second time as the kernels of this processor read them: what is opened maps
    them, so that processes share one copy. Where another processor's kernels want another form, each makes its own.
    """
    graph.parent.mkdir(parents=True, exist_ok=True)
    large = sum(file.stat().st_size for file in source.parent.iterdir() if file.is_file()) > SHARED_BYTES
    packed = large and device == "cpu"
    open_session(source, device, _writing(graph, threads, large=large, packed=packed, folded=folded))
    if packed and _unaligned(graph):
        open_session(source, device, _writing(graph, threads, large=large, packed=False, folded=folded))


def _writing(graph: Path, threads: int, *, large: bool, packed: bool, folded: bool) -> ort.SessionOptions:
    """Options of a session that writes what it has made of a graph, and its weights beside it if they are large."""
    options = session_options(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(graph)
    if folded:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if large:
        prefix = "session.optimized_model_external_initializers"
        options.add_session_config_entry(f"{prefix}_file_name", f"{graph.name}.data")
        options.add_session_config_entry(f"{prefix}_min_size_in_bytes", "1024")
        options.add_session_config_entry("session.save_external_prepacked_constant_initializers", str(int(packed)))
    return options


def _unaligned(graph: Path) -> bool:
    """Whether a packed weight lies where kernels cannot read it: behind one whose size is no multiple of a vector's.

    ONNX Runtime 1.31 writes weights below a megabyte one behind another, says where their packed forms are as
    KERNEL+HASH|OFFSET;SIZE;..., and crashes.
    """
    return any(int(place) % VECTOR for place in PACKED.findall(graph.read_bytes()))
